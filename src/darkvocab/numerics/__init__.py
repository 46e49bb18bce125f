"""Number grids, identical-row grouping, Chebyshev distance, and the cells that noise can reach."""

from .chebyshev import Spectrum, chebyshev_spectrum
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

__all__ = [
    "GRIDS",
    "Grid",
    "Groups",
    "Spectrum",
    "as_grid",
    "boundaries",
    "chebyshev_spectrum",
    "decode",
    "encode",
    "from_index",
    "identical_rows",
    "index_values",
    "round_to",
    "steps",
    "to_index",
    "ulp",
]
