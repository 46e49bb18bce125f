"""Sets of rows, compiled: a forest in which `parent` [n] leads from each row to the smallest of its set."""

from .compilation import kernel


@kernel(forceinline=True)
def _root(parent, i):
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@kernel(forceinline=True)
def unite(parent, i, j):
    """Make one set of those of i and j; a set goes by its smallest member."""
    i, j = _root(parent, i), _root(parent, j)
    if i < j:
        parent[j] = i
    else:
        parent[i] = j


@kernel()
def unite_all(parent, one, other):
    """Make one set of one[i] and other[i], for all i."""
    for i in range(one.size):
        unite(parent, one[i], other[i])


@kernel()
def flatten(parent):
    """Let every row's parent be the smallest member of its set: parents come before their children."""
    for i in range(parent.size):
        parent[i] = parent[parent[i]]
