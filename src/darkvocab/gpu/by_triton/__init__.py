"""Kernels in Triton, on CUDA: rows are drawn by these alone, and the functions of `by_torch` are here, fast."""
