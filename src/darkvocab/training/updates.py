"""Updates: what a step of an optimizer did to each row, how much of it rounding lost, and why a row moved."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from ..embedding.history import History
from ..extras import import_torch
from ..numerics import _backends
from ..runs.records import reading

FILE, KEY = "updates.safetensors", "updates"
# Of a row at a step: elements that the step was to change, those of them that kept their word, those that changed; why
# it moved, of the causes below; and the Euclidean norm of its gradient. NaN: not known of this optimizer.
COLUMNS = ("asked", "lost", "moved", "causes", "gradient_norm")
IN_BATCH, DECAY, GRADIENT, MOMENTUM, NO_BATCH = 1, 2, 4, 8, 16  # the last: nobody saw which tokens were in the batch
KNOWN = ("Adam", "AdamW", "SGD")  # optimizers whose steps are zero only where gradient, momentum and decay are


def rows_of(tensor: Any, ids: Any, *, copy: bool = True) -> Any:
    """Return rows [k, dim] of a parameter, or of what belongs to it, gathered bit for bit where processes share it.

    Parameters
    ----------
    ids : of the rows, ascending; None: all
    copy : even where all rows are asked for, and lie here
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
    # Words and not numbers are added up, so that a negative zero stays one; in a type that every backend adds.
    words = _words(rows)
    wide = words.to(torch.int64)
    torch.distributed.all_reduce(wide, group=mesh.get_group())
    return wide.to(words.dtype).view(rows.dtype)


def words_of(rows: Any) -> np.ndarray:
    """Return the words of a matrix, on whatever device, as numpy."""
    return rows.cpu().contiguous().view(import_torch("train").uint8).numpy().view(f"u{rows.itemsize}")


def _words(rows: Any) -> Any:
    torch = import_torch("train")
    return rows.view({2: torch.int16, 4: torch.int32, 8: torch.int64}[rows.itemsize])


def measure_update(optimizer: Any, parameter: Any, ids: Any, before: Any, after: Any, seen: Any) -> Any:
    """Return what a step that torch's optimizer just made did to rows, float32 [k, 5], as `compare`.

    Parameters
    ----------
    before, after : rows [k, dim] around the step
    """
    torch = import_torch("train")
    group = next(group for group in optimizer.param_groups if any(one is parameter for one in group["params"]))
    state = optimizer.state.get(parameter, {})
    gradient = torch.zeros_like(before) if parameter.grad is None else rows_of(parameter.grad, ids, copy=False)
    momentum = state.get("exp_avg", state.get("momentum_buffer"))
    driving = gradient if momentum is None else rows_of(momentum, ids, copy=False)
    norms = gradient.norm(dim=1, dtype=torch.float32)
    moves, decays = float(group["lr"]) != 0, float(group.get("weight_decay", 0)) != 0
    columns = compare(before, after, driving, norms, seen, decays=moves and decays)
    if not moves:
        columns[:, :2] = 0
    if type(optimizer).__name__ not in KNOWN:
        columns[:, :2] = torch.nan
    return columns


def compare(before: Any, after: Any, driving: Any, norms: Any, seen: Any, *, decays: bool) -> Any:
    """Return what a step did to rows, float32 [k, 5]: `COLUMNS`.

    An element is lost where the step is not zero and its word stays: for AdamW and SGD exactly those whose step, with
    the decay rounded first, is under half the spacing of the weights' grid there.

    Parameters
    ----------
    before, after, driving : rows [k, dim] around the step, and momentum, or else the gradient, which it is made of
    norms : of the rows' gradients [k]
    seen : bool [k], rows that were looked up since the step before; None where nobody saw
    decays : the step pulls weights towards zero, too
    """
    torch = import_torch("train")
    if before.device.type != "cpu":
        return compare_by_torch(before, after, driving, norms, seen, decays=decays)
    columns = torch.empty(len(before), len(COLUMNS), dtype=torch.float32)
    words = [each.numpy().view(f"u{each.itemsize}") for each in map(_words, (before, after, driving))]
    in_batch = np.empty(0, bool) if seen is None else seen.numpy()
    causes = _of_all_rows(seen, decays), IN_BATCH, GRADIENT, MOMENTUM
    _backends.motion.tally_updates(*words, norms.numpy(), in_batch, decays, *causes, columns.numpy())
    return columns


def compare_by_torch(before: Any, after: Any, driving: Any, norms: Any, seen: Any, *, decays: bool) -> Any:
    """Return the columns of `compare` by torch's own operations, on any device."""
    torch = import_torch("train")
    asked = driving != 0
    causes = torch.where(norms == 0, MOMENTUM * asked.any(1), GRADIENT) + _of_all_rows(seen, decays)
    if seen is not None:
        causes += IN_BATCH * seen
    if decays:
        asked |= before != 0
    moved = _words(before) != _words(after)
    counts = torch.stack((asked, asked > moved, moved)).sum(2, dtype=torch.float32)
    return torch.stack([*counts, causes.float(), norms], 1)


def _of_all_rows(seen: Any, decays: bool) -> int:
    return DECAY * decays + NO_BATCH * (seen is None)


def lost_updates(source: str | Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return what became of the updates of a recorded training, by step and by token; raises as `History.open`.

    Shares are of elements that a step was to change; rows that moved without being in the batch are counted by cause:
    the gradient (of a tied output matrix), momentum of earlier gradients alone, or decay alone.
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
