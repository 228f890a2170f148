"""What batch normalization is: scaling, the transform and its gradients, inference."""
