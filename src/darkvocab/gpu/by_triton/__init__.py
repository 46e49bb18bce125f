"""Kernels in Triton, on CUDA: rows are drawn, grouped and compared by these."""
