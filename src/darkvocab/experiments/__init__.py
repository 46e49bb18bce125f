"""Experiments: each takes settings and yields records."""
