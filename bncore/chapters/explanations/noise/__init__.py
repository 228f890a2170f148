"""The chapter on the noise of batch norm and what it does."""
