"""Rows of a model's tokens: where are they in its files, and what numbers do they hold?

The search for the embedding's tensors, the matrix on its number grid, and the history of one in training.
"""
