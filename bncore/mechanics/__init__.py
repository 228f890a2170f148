"""What batch normalization is: scaling, the transform and its gradients, inference.

NumPy and SciPy only. Features lie on axis 1, as in torch.
"""

from bncore.mechanics import conventions, folding, frameworks, inference, rank, scaling, transform

__all__ = ["conventions", "folding", "frameworks", "inference", "rank", "scaling", "transform"]
