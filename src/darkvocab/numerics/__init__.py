"""Number grids, identical-row grouping, Chebyshev distance, near rows, and the cells that noise can reach."""

from .chebyshev import Distances, Spread
from .grids import (
    GRIDS,
    Grid,
    as_grid,
    boundaries,
    decode,
    encode,
    from_index,
    index_values,
    round_to,
    steps,
    to_index,
    ulp,
)
from .grouping import Groups, identical_rows
from .neighbours import Near, near_rows
from .touching import Touching

__all__ = [
    "GRIDS",
    "Distances",
    "Grid",
    "Groups",
    "Near",
    "Spread",
    "Touching",
    "as_grid",
    "boundaries",
    "decode",
    "encode",
    "from_index",
    "identical_rows",
    "index_values",
    "near_rows",
    "round_to",
    "steps",
    "to_index",
    "ulp",
]
