"""The claims, exercises, experiments, figures and recorded run of the covariate shift chapter."""
