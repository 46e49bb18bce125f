"""Kernels in Triton, on CUDA: the functions of `by_torch`, fast."""
