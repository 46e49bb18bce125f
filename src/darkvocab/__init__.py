"""Find the tokens that a language model never learned, measure their structure, simulate how it arises.

Every name loads its module when it is first used: `import darkvocab` itself loads nothing.
"""

import lazy_loader

WINGS = (
    "checkpoints",
    "corpora",
    "embedding",
    "measures",
    "numerics",
    "snowballs",
    "studies",
    "training",
    "verification",
)

__getattr__, __dir__, _names = lazy_loader.attach_stub(__name__, __file__)
__all__ = [name for name in _names if name not in WINGS]
__version__ = "0.1.0"
