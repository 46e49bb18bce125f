"""Closed forms: what the census of a snowball is expected to be."""

from .columns import MARGINALS, Columns, Marginal, columns
from .likeliest import Likeliest, likeliest
from .occupancy import Moments, Occupancy

__all__ = ["MARGINALS", "Columns", "Likeliest", "Marginal", "Moments", "Occupancy", "columns", "likeliest"]
