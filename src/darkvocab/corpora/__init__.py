"""Corpora: which tokens do one's own texts use, how often and where, and which of the vocabulary never?"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
