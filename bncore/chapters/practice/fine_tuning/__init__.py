"""The chapter on fine-tuning."""
