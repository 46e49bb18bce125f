"""Verification: can a model repeat its tokens? Which of them does it fail on, and which did the weights not name?

Frames are what is asked, `model` answers, `tokens` chooses for which tokens, and `run` asks and keeps the answers;
`measures.verdict` says what they come to.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
