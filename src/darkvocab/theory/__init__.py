"""Closed forms: what the census of a snowball is expected to be, and how probable a census is."""

from .marginals import MARGINALS, Columns, Marginal, columns
from .occupancy import Moments, Occupancy
from .partitions import Partition, composite_likelihood, partition_likelihood
from .ranking import Likeliest, likeliest

__all__ = [
    "MARGINALS",
    "Columns",
    "Likeliest",
    "Marginal",
    "Moments",
    "Occupancy",
    "Partition",
    "columns",
    "composite_likelihood",
    "likeliest",
    "partition_likelihood",
]
