"""Kernels in plain torch, for mps and tests: grouping and distances. What mps measures, cores draw."""
