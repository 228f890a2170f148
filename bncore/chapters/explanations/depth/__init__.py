"""The depth chapter: its experiments, recorded run, figures, claims and exercises."""
