"""The tested code behind the Batch Normalization book."""
