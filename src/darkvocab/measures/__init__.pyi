from .census import Census as Census
from .geometry import Geometry as Geometry
from .indicators import Indicators as Indicators
from .neighbours import Neighbours as Neighbours
from .topology import Topology as Topology
from .vocabulary import Vocabulary as Vocabulary
