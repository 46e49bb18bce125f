from .check import Verdict as Verdict
from .diff import Diff as Diff
from .diff import MatrixDiff as MatrixDiff
from .neighbourhood import Neighbourhood as Neighbourhood
from .policy import Policy as Policy
from .scan_result import Scan as Scan
from .series import Series as Series
from .series import find_checkpoints as find_checkpoints
