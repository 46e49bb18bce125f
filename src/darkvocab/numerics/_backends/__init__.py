"""Compiled kernels, one file per job. Each has a plain twin in ``tests/twins``; import them lazily: they load numba."""
