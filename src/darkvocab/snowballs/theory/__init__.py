"""Closed forms: what the census of a snowball is expected to be, and how probable a census is."""

from .distances import LInfinity as LInfinity
from .occupancy import Moments as Moments
from .occupancy import Occupancy as Occupancy
from .occupancy import likeliest as likeliest
from .partitions import Partition as Partition
from .partitions import composite_likelihood as composite_likelihood
from .partitions import partition_likelihood as partition_likelihood
