"""Measures of a set of rows. Each file stands alone."""
