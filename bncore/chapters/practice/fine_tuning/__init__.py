"""The chapter on fine-tuning."""

MODULES = ("practice/recalibration", "practice/freezing", "practice/masking")
