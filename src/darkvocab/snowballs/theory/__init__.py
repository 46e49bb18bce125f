"""Closed forms: what the census of a snowball is expected to be, and how probable a census is."""

from .distances import DistanceLaw, LInfinity, density
from .marginals import MARGINALS, Columns, Marginal, columns
from .occupancy import Moments, Occupancy
from .partitions import Partition, composite_likelihood, partition_likelihood
from .ranking import Likeliest, likeliest

__all__ = [
    "MARGINALS",
    "Columns",
    "DistanceLaw",
    "LInfinity",
    "Likeliest",
    "Marginal",
    "Moments",
    "Occupancy",
    "Partition",
    "columns",
    "composite_likelihood",
    "density",
    "likeliest",
    "partition_likelihood",
]
