"""The chapter on feature scaling."""
