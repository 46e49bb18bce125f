"""Verification: can a model repeat its tokens? Which of them does it fail on, and which did the weights not name?

Frames are what is asked, models and servers who answers, `run` asks, and `verdict` says what the answers come to.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
