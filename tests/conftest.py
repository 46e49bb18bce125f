"""Hypothesis without deadlines: the first call of a kernel compiles it."""

from hypothesis import settings

settings.register_profile("darkvocab", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("darkvocab")
