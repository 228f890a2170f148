"""The smoothness chapter: its claims, exercises, experiments and figures."""
