"""What a chapter shows: interactive figures, plot style, claims and exercise checks."""

from bncore.page import style
from bncore.page.interactive import Explorer, explore, show

__all__ = ["Explorer", "explore", "show", "style"]
