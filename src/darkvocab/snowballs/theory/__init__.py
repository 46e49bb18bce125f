"""Closed forms: the expected census of a snowball, and the probability of a census."""

from .distances import LInfinity as LInfinity
from .occupancy import Moments as Moments
from .occupancy import Occupancy as Occupancy
from .occupancy import likeliest as likeliest
from .partitions import Partition as Partition
from .partitions import composite_likelihood as composite_likelihood
from .partitions import partition_likelihood as partition_likelihood
