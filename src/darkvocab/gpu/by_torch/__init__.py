"""Kernels in plain torch, on any device: the twins of the compiled ones."""
