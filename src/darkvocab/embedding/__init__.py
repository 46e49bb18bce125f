"""Embedding matrices of checkpoints: find the tensor, read its rows on their grid, and read training histories."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
