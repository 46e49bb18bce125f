"""Train a model and watch its embedding, or record somebody else's training.

A small GPT-2 trained from a snowball and recorded step by step (`settings`, `run`, `outcome`, `replicas`), and its
black holes followed through the recording (`evolve`).
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
