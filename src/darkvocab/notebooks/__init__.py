"""Reproduce the notebooks' experiments: each published figure beside ours."""
