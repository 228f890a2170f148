"""What a chapter shows: interactive figures, plot style, claims and exercise checks."""

from bncore.page import style
from bncore.page.interactive import Explorer, explore, show
from bncore.page.rows import curves, table

__all__ = ["Explorer", "curves", "explore", "show", "style", "table"]
