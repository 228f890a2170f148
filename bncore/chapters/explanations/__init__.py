"""The claims, exercises, experiments and figures of the chapters on explanations."""
