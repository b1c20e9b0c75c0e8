"""Work that survives a kill: which films came, how far each has got, what failed, and what is to be tried again."""

from msloc_edge.journal.journal import Item, Journal

__all__ = ["Item", "Journal"]
