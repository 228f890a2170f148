"""Pages outside the wings."""
