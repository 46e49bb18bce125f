"""Which rows does a model hold?

The search for its embedding, the matrix on its number grid, and its history.
"""
