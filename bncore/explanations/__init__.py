"""Why batch normalization works: each explanation with what measures it."""
