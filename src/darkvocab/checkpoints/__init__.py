"""Which tokens are dark in my model?

Scans, checks, repairs, differences and series of checkpoints.
"""
