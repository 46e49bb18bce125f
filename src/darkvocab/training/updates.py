"""Measure what an optimizer's step did to each row: how much of the update rounding lost, and why a row moved."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from ..embedding.history import History
from ..extras import import_torch
from ..numerics import _backends
from ..runs.records import reading

FILE, KEY = "updates.safetensors", "updates"
# For each row and step: elements with a non-zero update, those of them that rounding left as they were, elements that
# changed; the bits of the causes below; and the Euclidean norm of the row's gradient. NaN: unknown for this optimizer.
UPDATE_COLUMNS = ("asked", "lost", "moved", "causes", "gradient_norm")
IN_BATCH, DECAY, GRADIENT, MOMENTUM, NO_BATCH = 1, 2, 4, 8, 16  # bits; the last: the batch's tokens are not known
EXACT_FOR = ("Adam", "AdamW", "SGD")  # whose update is zero exactly where gradient, momentum and decay are


def rows_of(tensor: Any, ids: Any, *, copy: bool = True) -> Any:
    """Return rows [k, dim] of a parameter, its gradient or momentum: those of `ids`, ascending, or all.

    FSDP's shards are gathered bit for bit. Without `copy` the tensor itself may be returned.
    """
    torch = import_torch("train")
    tensor = tensor.detach()
    if not hasattr(tensor, "to_local"):
        return tensor[ids] if ids is not None else tensor.clone() if copy else tensor
    mesh, local = tensor.device_mesh, tensor.to_local()
    if ids is None or mesh.ndim > 1 or not tensor.placements[0].is_shard(0):
        whole = tensor.full_tensor()
        return whole if ids is None else whole[ids]
    first = mesh.get_local_rank() * -(-len(tensor) // mesh.size())  # FSDP cuts rows as torch.chunk does
    ours = (ids >= first) & (ids < first + len(local))
    rows = local.new_zeros(len(ids), *tensor.shape[1:])
    rows[ours] = local[ids[ours] - first]
    # Bit patterns are summed, so that -0.0 stays -0.0, as int64, which every backend can sum.
    words = _words(rows)
    wide = words.to(torch.int64)
    torch.distributed.all_reduce(wide, group=mesh.get_group())
    return wide.to(words.dtype).view(rows.dtype)


def words_of(rows: Any) -> np.ndarray:
    """Return a tensor's bit patterns as a NumPy array of unsigned integers."""
    return rows.cpu().contiguous().view(import_torch("train").uint8).numpy().view(f"u{rows.itemsize}")


def _words(rows: Any) -> Any:
    torch = import_torch("train")
    return rows.view({2: torch.int16, 4: torch.int32, 8: torch.int64}[rows.itemsize])


def measure_update(optimizer: Any, parameter: Any, ids: Any, before: Any, after: Any, seen: Any) -> Any:
    """Return what the last step of a torch optimizer did to rows, float32 [k, 5]; parameters as `compare`."""
    torch = import_torch("train")
    group = next(group for group in optimizer.param_groups if any(one is parameter for one in group["params"]))
    state = optimizer.state.get(parameter, {})
    gradient = torch.zeros_like(before) if parameter.grad is None else rows_of(parameter.grad, ids, copy=False)
    momentum = state.get("exp_avg", state.get("momentum_buffer"))
    driving = gradient if momentum is None else rows_of(momentum, ids, copy=False)
    norms = gradient.norm(dim=1, dtype=torch.float32)
    moves = float(group["lr"]) != 0
    decays = moves and float(group.get("weight_decay", 0)) != 0
    columns = compare(before, after, driving, norms, seen, decays=decays)
    if not moves:
        columns[:, :2] = 0
    if type(optimizer).__name__ not in EXACT_FOR:
        columns[:, :2] = torch.nan
    return columns


def compare(before: Any, after: Any, driving: Any, norms: Any, seen: Any, *, decays: bool) -> Any:
    """Return what a step did to rows, float32 [k, 5]: `UPDATE_COLUMNS`.

    An update is lost where it is not zero and the weight keeps its bits: for AdamW and SGD exactly where the step, with
    the decay rounded first, is under half the spacing of the weights' grid.

    Parameters
    ----------
    before, after, driving : rows [k, dim] before and after the step; their momentum, or gradient without momentum
    norms : gradient norms of the rows [k], float32
    seen : bool [k], rows that were looked up since the step before; None where that is not known
    decays : the step has weight decay
    """
    torch = import_torch("train")
    if before.device.type != "cpu":
        return compare_by_torch(before, after, driving, norms, seen, decays=decays)
    columns = torch.empty(len(before), len(UPDATE_COLUMNS), dtype=torch.float32)
    words = map(words_of, (before, after, driving))
    in_batch = np.empty(0, bool) if seen is None else seen.numpy()
    causes = DECAY * decays + NO_BATCH * (seen is None), IN_BATCH, GRADIENT, MOMENTUM
    _backends.motion.tally_updates(*words, norms.numpy(), in_batch, decays, *causes, columns.numpy())
    return columns


def compare_by_torch(before: Any, after: Any, driving: Any, norms: Any, seen: Any, *, decays: bool) -> Any:
    """Return the columns of `compare` by torch's own operations, on any device."""
    torch = import_torch("train")
    asked = driving != 0
    causes = torch.where(norms == 0, MOMENTUM * asked.any(1), GRADIENT) + DECAY * decays
    causes += NO_BATCH if seen is None else IN_BATCH * seen
    if decays:
        asked |= before != 0
    moved = _words(before) != _words(after)
    counts = torch.stack((asked, asked > moved, moved)).sum(2, dtype=torch.float32)
    return torch.stack([*counts, causes.float(), norms], 1)


def lost_updates(source: str | Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return sums of the updates of a recorded training, by step and by token; raises as `History.open`.

    Shares are of elements with a non-zero update. Rows that moved without being in the batch are counted by cause: the
    gradient (of a tied output matrix), momentum of earlier gradients alone, or decay alone.
    """
    folder = Path(source)
    history = History.open(folder / FILE if folder.is_dir() else folder, tensor=KEY)
    with reading(history.path, "the updates of a recorded training"):
        states = np.stack([state.view(np.float32) for _, state in history.words(range(history.n_rows))])
    asked, lost, moved, causes, norm = np.moveaxis(states, 2, 0)
    causes = causes.astype(np.int64)
    steps = history.step(0) + history.record_every * np.arange(1, len(states) + 1)
    has_moved = moved > 0
    outside = has_moved & ((causes & (IN_BATCH | NO_BATCH)) == 0)
    by_gradient = outside & ((causes & GRADIENT) > 0)
    by_momentum = outside & ((causes & MOMENTUM) > 0)
    counts = {
        "n_in_batch": (causes & IN_BATCH) > 0,
        "n_moved": has_moved,
        "n_frozen": (asked > 0) & ~has_moved,
        "n_moved_outside": outside,
        "n_by_gradient": by_gradient,
        "n_by_momentum": by_momentum,
        "n_by_decay": outside & ~by_gradient & ~by_momentum,
    }

    def table(axis: int, **first: np.ndarray) -> pl.DataFrame:
        sums = {"asked": asked.sum(axis, dtype=np.float64), "lost": lost.sum(axis, dtype=np.float64)}
        with np.errstate(divide="ignore", invalid="ignore"):
            share = sums["lost"] / sums["asked"]
        counted = {name: flags.sum(axis) for name, flags in counts.items()}
        most = {"largest_gradient_norm": norm.max(axis)}
        return pl.DataFrame({**first, **sums, "share_lost": share, **counted, **most}).fill_nan(None)

    ids = np.arange(history.n_tokens) if history.ids is None else np.array(history.ids)
    return table(1, step=steps), table(0, token=ids)
