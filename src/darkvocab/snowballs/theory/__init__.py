"""Closed forms: what the census of a snowball is expected to be, and how probable a census is."""

from .distances import DistanceLaw, LInfinity, density
from .occupancy import Moments, Occupancy
from .partitions import Partition, composite_likelihood, partition_likelihood
from .ranking import Likeliest, likeliest

__all__ = [
    "DistanceLaw",
    "LInfinity",
    "Likeliest",
    "Moments",
    "Occupancy",
    "Partition",
    "composite_likelihood",
    "density",
    "likeliest",
    "partition_likelihood",
]
