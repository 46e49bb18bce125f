"""Rows compared: how far apart are they, which coincide or touch, and which were never trained?

One measure a file, each known to no other; `dark` puts them together to judge a checkpoint's tokens.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
