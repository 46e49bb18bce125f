"""Dark tokens of a model: which are they, what is wrong with them, and what changed them?

Scan, check against a policy, repair, diff of two checkpoints and series of many, each in a file of its name.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
