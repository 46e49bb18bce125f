"""Tokenizers: which ids a text becomes, by the library that runs it; what each token stands for; the rules behind."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
