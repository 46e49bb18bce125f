"""The command line: parse, call one library function, print. stdout carries data, stderr everything else.

Commands stand in `--help` in the order in which their modules are imported here.
"""

from .shell import app, main  # isort: skip
from . import checkpoints, snowballs, runs, doctor  # isort: skip

__all__ = ["app", "checkpoints", "doctor", "main", "runs", "snowballs"]
