from .census import Census as Census
from .geometry import Geometry as Geometry
from .geometry import Topology as Topology
from .indicators import Indicators as Indicators
from .neighbours import Neighbours as Neighbours
from .vocabulary import Vocabulary as Vocabulary
