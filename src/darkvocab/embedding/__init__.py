"""Rows of a model's tokens: where are they in its files, and what numbers do they hold?

The search for the embedding's tensors, the matrix on its number grid, and the history of one in training.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
