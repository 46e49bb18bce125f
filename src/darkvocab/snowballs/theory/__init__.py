"""Closed forms: what the census of a snowball is expected to be, and how probable a census is."""

from .distances import LInfinity
from .occupancy import Moments, Occupancy
from .partitions import Partition, composite_likelihood, partition_likelihood

__all__ = ["LInfinity", "Moments", "Occupancy", "Partition", "composite_likelihood", "partition_likelihood"]
