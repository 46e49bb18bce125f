"""Batches of trials for the kernels of a device, and what the compiled kernels of the CPU make of them."""

import numpy as np
import torch

from darkvocab.numerics import GRIDS
from darkvocab.numerics._backends import deviates, drawing, grouping
from darkvocab.numerics.cells import DISTRIBUTIONS, Cells
from darkvocab.snowballs.on_device import Lanes
from darkvocab.snowballs.snowball import Snowball

SEEDS = (0, 2**31, 2**63 - 1, 2**63, 2**64 - 1)
COUNTERS = (0, 2**32 - 1, 7, 2**31)  # of points and trials


def shape_of(grid):
    return GRIDS[grid].mantissa_bits, GRIDS[grid].min_exponent, GRIDS[grid].max_code


def room(grid, *shape):
    """Zeros, as wide as the grid's words."""
    return torch.zeros(shape, dtype={8: torch.int8, 16: torch.int16, 32: torch.int32}[GRIDS[grid].bits])


class Dense:
    """A ragged batch: two bases, and sigmas from those that move little to one that overflows most grids."""

    def __init__(self, dim, n, n_trials=4, most=1e3):
        rng = np.random.default_rng(dim)
        self.n = n
        self.bases = rng.standard_normal((2, dim)) * 10.0 ** rng.integers(-6, 1, (2, dim))
        self.which = np.arange(n_trials) % 2
        self.sigmas = np.array([1e-5, 3e-3, 0.1, most])[:n_trials]
        self.points, self.trials = np.array(COUNTERS[:n_trials]), np.array(COUNTERS[::-1][:n_trials])

    def by(self, backend, grid, seed, *, laplace, float32, stream=0, order=slice(None)):
        """Indices and overflows, as `backend` draws these trials of the batch."""
        where = self.which, self.sigmas, self.points, self.trials
        parts = [torch.from_numpy(part[order]) for part in where]
        out = room(grid, len(parts[0]), self.n, self.bases.shape[1])
        options = {"laplace": laplace, "float32": float32, "stream": stream, "shape": shape_of(grid)}
        overflows = backend.draw_dense(torch.from_numpy(self.bases), *parts, seed, **options, out=out)
        return out.numpy(), overflows.numpy()

    def compiled(self, grid, seed, *, laplace, float32, stream=0):
        out = room(grid, len(self.which), self.n, self.bases.shape[1]).numpy()
        overflows = [
            deviates.draw_dense(
                *(self.bases[self.which[t]], self.sigmas[t], int(laplace), float32, stream, np.uint64(seed)),
                *(self.points[t], self.trials[t], shape_of(grid), out[t]),
            )
            for t in range(len(out))
        ]
        return out, np.array(overflows)


class Sparse:
    """A ragged batch of one grid: columns that move often, seldom, hardly ever and not at all."""

    def __init__(self, grid="bfloat16", dim=60, n=1100, sigmas=None):
        sigmas = sigmas or ((1e-5, 1e-3, 1e-5, 3e-2) if grid.startswith("float8") else (3e-9, 1e-6, 3e-9, 1e-4))
        rng = np.random.default_rng(dim)
        base = rng.standard_normal(dim) * 10.0 ** rng.integers(-6, 0, dim)
        eight_sigmas = np.resize(sigmas, dim // 2) * 2.0 ** (GRIDS[grid].mantissa_bits + 3)  # where these are a step
        base[: dim // 2] = eight_sigmas * rng.uniform(0.5, 1.5, dim // 2) * rng.choice([1, -1], dim // 2)
        base = base.astype(np.float32)
        result = {sigma: Snowball(base=base, n_tokens=n, sigma=sigma, grid=grid).single_cells() for sigma in sigmas}
        self.n, self.cells = n, [result[sigma] for sigma in sigmas]
        self.points, self.trials = COUNTERS[: len(sigmas)], COUNTERS[::-1][: len(sigmas)]

    def by(self, backend, seed, *, order=None, dtype=torch.int8, places=None):
        order = range(len(self.cells)) if order is None else order
        lanes = Lanes.of(
            *([part[t] for t in order] for part in (self.cells, self.points, self.trials)),
            places=None if places is None else [places[t] for t in order],
        )
        width = max(1 + int(p.max(initial=0)) for p in places or [np.arange(len(c.columns)) for c in self.cells])
        codes = torch.zeros((len(order), self.n, width), dtype=dtype)
        backend.draw_sparse(lanes, seed, codes)
        return codes.numpy()

    def compiled(self, seed):
        """Return each trial's codes, [n, active]."""
        of_trials = zip(self.cells, self.points, self.trials, strict=True)
        return [compiled_sparse(result, self.n, seed, point, trial) for result, point, trial in of_trials]


def compiled_sparse(cells, n, seed, point, trial):
    """Codes of one trial, [n, active]."""
    out = np.zeros((n, len(cells.columns)), np.int8)
    key = seed & 0xFFFFFFFF, seed >> 32
    drawing.draw_sparse(
        cells.columns, cells.shift, cells.edge_starts, cells.thresholds, *key, point, trial, out, *drawing.room()
    )
    return out


def tied(home):
    """Cells of one column whose thresholds share their upper 16 bits, of which it is at home in number `home`."""
    return one_column(100 + home, np.array([1 << 62 | 1 << 44, 1 << 62 | 5 << 44, 1 << 62 | 11 << 44], np.uint64))


def one_column(home, thresholds):
    """Cells of one column, of which 100 is the lowest, with these thresholds in place of those of their deviates."""
    n = len(thresholds) + 1
    cells = Cells(
        grid=GRIDS["bfloat16"],
        distribution=DISTRIBUTIONS["gaussian"],
        home=np.array([home]),
        columns=np.array([0]),
        unlisted=np.array([], np.int64),
        starts=np.array([0, n]),
        first=np.arange(100, 100 + n),
        count=np.ones(n, np.int64),
        deviates=np.full(n, np.nan),
        neglected=0.0,
    )
    cells.__dict__["thresholds"] = thresholds
    return cells


def values_at_edges():
    """Float64 numbers from the smallest to infinity, and halfway between neighbours of every grid."""
    powers = [sign * part * 2.0**e for e in range(-160, 130) for part in (1, 1.125, 1 + 2.0**-24) for sign in (1, -1)]
    return np.array([0.0, -0.0, 5e-324, -1e-310, 1e308, np.inf, -np.inf, *powers])


def equal(codes_of_trials, drawn):
    """Say whether the codes of a batch are those of each of its trials, and nothing else is written."""
    return all(
        np.array_equal(codes[:, : of_trial.shape[1]], of_trial) and not codes[:, of_trial.shape[1] :].any()
        for codes, of_trial in zip(codes_of_trials, drawn, strict=True)
    )


class Rows:
    """Trials of few different words, half of whose rows are copies of others; words [T, n, dim] unsigned."""

    def __init__(self, bits, n_trials, n, dim):
        rng = np.random.default_rng(n + dim)
        sign = 1 << (bits - 1)
        kinds = np.array([0, 1, 2, sign, sign + 1, 2 * sign - 1], np.uint64).astype(f"u{bits // 8}")
        self.words = kinds[rng.integers(0, len(kinds), (n_trials, n, dim))]
        if n > 1:
            self.words[:, n // 2 :] = self.words[:, rng.integers(0, n // 2, n - n // 2)]
        self.sign = self.words.dtype.type(sign)
        self.keys = rng.integers(0, 2**64, dim, dtype=np.uint64)

    def tensors(self):
        return torch.from_numpy(self.words.view(f"i{self.words.itemsize}")), torch.from_numpy(self.keys.view(np.int64))

    def compiled(self, folded):
        """Hashes and largest codes of each row, as int64."""
        hashes = np.empty(self.words.shape[:2], np.uint64)
        largest = np.empty(self.words.shape[:2], self.words.dtype)
        for rows, *out in zip(self.words, hashes, largest, strict=True):
            grouping.hash_rows(rows, self.keys, self.sign, self.sign if folded else self.sign ^ self.sign, *out)
        return hashes.view(np.int64), largest.astype(np.int64)

    def leaders(self, folded):
        """The first equal row of each, from a table of rows."""
        rows = np.where(self.words == self.sign, 0, self.words) if folded else self.words
        result = np.empty(rows.shape[:2], np.int64)
        for of_trial, leader in zip(rows, result, strict=True):
            first = {}
            leader[:] = [first.setdefault(row.tobytes(), i) for i, row in enumerate(of_trial)]
        return result
