"""Record the embedding of any torch training into the files that `evolve` and `history` read."""

import json
import sys
import time
import tomllib
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from ..embedding.history import HISTORY_FILE, HISTORY_KEY, History
from ..errors import CorruptFile, DiskFull, InvalidInput, NoResult, one_of
from ..extras import import_extra, import_torch
from ..numerics import decode
from ..numerics.grouping import identical_rows
from ..runs.folder import Folder, read_manifest, repeating, versions
from ..text import listed
from . import updates
from .choices import ERRORS
from .recording import Recording, recorded

ON_ALARM = ("warn", "record", "stop")
PENDING = 1 << 28  # most bytes of states that wait to be written
ALARMS = "alarms.jsonl"
LIMITS, SENTENCES = tomllib.loads(Path(__file__).with_name("alarms.toml").read_text("utf-8")).values()


class Alarm(NoResult):
    """The recorder raised an alarm that stops the training."""


@dataclass(kw_only=True)
class Watched:
    """A recorded matrix of a model in training."""

    name: str  # embedding or output
    find: Callable[[], Any]  # returns the model's parameter now: resizing replaces it
    parameter: Any
    ids: Any  # ids of the recorded rows, on the parameter's device; None: all rows
    kinds: list[str]  # recorded beside rows and updates: gradient, exp_avg, exp_avg_sq
    seen: Any = None  # bool [vocabulary], rows that were looked up since the last step; None where that is not known
    before: Any = None  # the rows before a step

    def rows(self) -> Any:
        """Return a copy of the rows [k, dim]; under FSDP every process must call this."""
        return updates.rows_of(self.parameter, self.ids)

    @property
    def dtype(self) -> str:
        return str(self.parameter.dtype).removeprefix("torch.")

    def files(self) -> Iterator[tuple[str, str, tuple[int, int], str]]:
        """Yield file name, key, shape of a state, and dtype of each recording, in the order of `measure`."""
        shape = len(self.parameter if self.ids is None else self.ids), self.parameter.shape[1]
        yield HISTORY_FILE.replace("embedding", self.name), HISTORY_KEY, shape, self.dtype
        prefix = "" if self.name == "embedding" else f"{self.name}_"
        yield f"{prefix}{updates.FILE}", updates.KEY, (shape[0], len(updates.UPDATE_COLUMNS)), "float32"
        for key in (f"{self.name}_{kind}" for kind in self.kinds):
            yield f"{key}.safetensors", key, shape, self.dtype

    def measure(self, optimizer: Any) -> Iterator[Any]:
        """Yield the tensors to record after a step: rows [k, dim], the update [k, 5], and each of `kinds`."""
        rows = self.rows()
        yield rows
        seen = self.seen if self.seen is None or self.ids is None else self.seen[self.ids]
        yield updates.measure_update(optimizer, self.parameter, self.ids, self.before, rows, seen)
        tensors = {"gradient": self.parameter.grad, **optimizer.state.get(self.parameter, {})}
        for tensor in map(tensors.get, self.kinds):
            yield rows.new_zeros(rows.shape) if tensor is None else updates.rows_of(tensor, self.ids).to(rows.dtype)


class Recorder:
    """Record the embedding of a torch training, and the output matrix of an untied model.

    Hooks count the optimizer's steps: row k is the state right after `every` * k steps, whatever is accumulated,
    clipped, compiled or scaled. `updates.safetensors` has what each recorded step did to the rows
    (`updates.UPDATE_COLUMNS`), and `alarms.jsonl` what a person should look at. A thread writes. Where several
    processes train, the first one writes.

    Examples
    --------
    >>> with Recorder("runs/mine", every=10) as recorder:  # doctest: +SKIP
    ...     recorder.step(model, optimizer)  # before the first step: row 0
    ...     for batch in batches:
    ...         model(**batch).loss.backward()
    ...         optimizer.step()
    ...         optimizer.zero_grad()

    Parameters
    ----------
    out : a run folder, which `evolve` and `history` read, also while it grows
    every : optimizer steps from one recorded row to the next
    tokens : ids whose rows are recorded, by default all
    gradients, moments : record the gradient as the optimizer saw it, and Adam's moments, of the embedding, too
    embedding : the matrix: a parameter, or its name; by default what `get_input_embeddings` returns
    on_alarm : "warn", "record" (into the file alone) or "stop" (raise `Alarm` out of the step)
    resume : go on with the recording in `out` from the step of the training's checkpoint
    """

    def __init__(
        self,
        out: str | Path,
        *,
        every: int = 1,
        tokens: Iterable[int] | None = None,
        gradients: bool = False,
        moments: bool = False,
        embedding: Any = None,
        on_alarm: str = "warn",
        resume: bool = False,
    ) -> None:
        one_of(on_alarm, "on_alarm", ON_ALARM)
        if every < 1:
            raise InvalidInput(f"every must be >= 1 steps, got {every}")
        self.out = self._root = Path(out)
        self.every = every
        self.on_alarm = on_alarm
        self.resume = resume
        self.tokens = None if tokens is None else sorted(set(tokens))
        self.kinds = ["gradient"] * gradients + ["exp_avg", "exp_avg_sq"] * moments
        self.embedding = embedding
        self.done = 0  # steps of the optimizer
        self.alarm: Alarm | None = None  # to be raised out of the step
        self._optimizer: Any = None
        self._watched: list[Watched] = []
        self._opened = ExitStack()

    def step(self, model: Any, optimizer: Any, done: int | None = None) -> None:
        """Begin to record, before the first step; hooks of the optimizer do the rest.

        Later calls, such as one after each step, look whether the embedding was replaced, as `resize_token_embeddings`
        does: then a new segment begins, in a folder within this one. Raises InvalidInput for a model or an optimizer
        that cannot be recorded, and as `Folder`.

        Parameters
        ----------
        done : steps made so far, by default those in the optimizer's state
        """
        while hasattr(optimizer, "optimizer"):  # accelerate and Lightning wrap the one that makes the steps
            optimizer = optimizer.optimizer
        if self._optimizer is None:
            self._begin(model, optimizer, done)
        elif optimizer is not self._optimizer or any(one.find() is not one.parameter for one in self._watched):
            self.close()
            self.resume = False
            self.out = self._root / f"segment-{self.done:09d}"
            print(f"the model has another embedding; its rows are recorded into {self.out}", file=sys.stderr)
            self._begin(model, optimizer, self.done)

    def _begin(self, model: Any, optimizer: Any, done: int | None) -> None:
        torch = import_torch("train")
        self._watched = self._find(torch, model, optimizer)
        if done is None:
            done = max((int(state["step"]) for state in optimizer.state.values() if "step" in state), default=0)
        self.done = self.first = done
        shared = torch.distributed.is_available() and torch.distributed.is_initialized()
        self._writes = not (shared and torch.distributed.get_rank())
        start = [updates.words_of(one.rows()) for one in self._watched]
        if self._writes:
            self._take(model, optimizer, start)
        hooks = [optimizer.register_step_pre_hook(self._before), optimizer.register_step_post_hook(self._after)]
        matrix = self._watched[0].parameter
        module = next((part for part in model.modules() if getattr(part, "weight", None) is matrix), None)
        if isinstance(module, torch.nn.Embedding):
            hooks.append(module.register_forward_pre_hook(self._looked_up))
        for hook in hooks:
            self._opened.callback(hook.remove)
        self._optimizer = optimizer

    def _find(self, torch: Any, model: Any, optimizer: Any) -> list[Watched]:
        """Return the matrices to record; InvalidInput where there are none, or they cannot be recorded."""
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise InvalidInput(ERRORS["no_optimizer"].format(name=type(optimizer).__name__))
        inner: Any = next((part for part in model.modules() if hasattr(part, "get_input_embeddings")), None)
        finds: dict[str, Callable[[], Any]] = {}
        if isinstance(self.embedding, str):
            finds["embedding"] = lambda: dict(model.named_parameters()).get(self.embedding)
        elif self.embedding is not None:
            finds["embedding"] = lambda: self.embedding
        elif inner is not None:
            finds["embedding"] = lambda: inner.get_input_embeddings().weight
        head = inner.get_output_embeddings() if inner is not None and self.embedding is None else None
        if head is not None and head.weight is not finds["embedding"]():
            finds["output"] = lambda: inner.get_output_embeddings().weight
        if not finds or (parameter := finds["embedding"]()) is None:
            names = [name for name, held in model.named_parameters() if held.ndim == 2][:8]
            raise InvalidInput(ERRORS["which_parameter"].format(names=", ".join(names)))
        watched = []
        for name, find in finds.items():
            parameter = find()
            _check(parameter, name, optimizer)
            ids = None
            if self.tokens is not None:
                if outside := [token for token in self.tokens if not 0 <= token < len(parameter)]:
                    raise InvalidInput(f"there is no token {outside[0]}: the {name} has {len(parameter):,} rows")
                ids = torch.tensor(self.tokens, device=parameter.device)
            kinds = self.kinds if name == "embedding" else []
            watched.append(Watched(name=name, find=find, parameter=parameter, ids=ids, kinds=kinds))
        return watched

    def _take(self, model: Any, optimizer: Any, start: list[np.ndarray]) -> None:
        """Take the folder and open its recordings, at the step that the training goes on from."""
        n = self._n_before() if self.resume and (self.out / "manifest.json").is_file() else 0
        folder = Folder(self.out, self._manifest(model, optimizer), resume=self.resume)
        self._folder = self._opened.enter_context(folder)
        self._pool = self._opened.enter_context(ThreadPoolExecutor(1))
        self._pending: deque[Future[None]] = deque()
        self._was_full = self._ended = False
        self._recordings: list[Recording] = []
        metadata = {"record_every": self.every, "first_step": self.first}
        for one, rows in zip(self._watched, start, strict=True):
            for name, key, shape, dtype in one.files():
                at = n if key == HISTORY_KEY else max(n - 1, 0)
                recording = Recording(self.out / name, key, None, shape, dtype, metadata, resume_at=at)
                self._recordings.append(self._opened.enter_context(recording))
                if key == HISTORY_KEY and not n:
                    recording.extend(rows[None])
        self._room = max(2, PENDING // sum(recording.row_bytes for recording in self._recordings))
        history = History.open(self.out / HISTORY_FILE)
        self._grid = history.grid
        ((_, words),) = history.words([0])
        self._start = self._inspect(words)
        self._cut_alarms()

    def _n_before(self) -> int:
        """Choose the segment that holds the step to go on from; return the number of its rows up to that step."""
        folders = [self._root, *sorted(self._root.glob("segment-*"))]
        firsts = [int(read_manifest(folder)["parameters"].get("first_step", 0)) for folder in folders]
        fitting = [pair for pair in zip(firsts, folders, strict=True) if pair[0] <= self.done]
        if not fitting:
            raise InvalidInput(f"{self.out} begins with step {firsts[0]:,}, the training with step {self.done:,}")
        self.first, self.out = fitting[-1]
        n = (self.done - self.first) // self.every + 1 if self.done > self.first else 0
        if (held := recorded(self.out / HISTORY_FILE)) < n:
            raise CorruptFile(ERRORS["fewer_rows"].format(folder=self.out, held=held, n=n, done=self.done))
        return n

    def _manifest(self, model: Any, optimizer: Any) -> dict[str, Any]:
        matrices = {one.name: {"shape": list(one.parameter.shape), "dtype": one.dtype} for one in self._watched}
        return {
            "experiment": "record",
            **repeating("record", {}, {}, "it was recorded in a training of its own"),
            "seed": 0,
            "packages": versions("torch"),
            "inputs": [],
            "parameters": {
                **{"model": type(model).__name__, "optimizer": type(optimizer).__name__, "matrices": matrices},
                **{"record_every": self.every, "first_step": self.first},
                **{"token_ids": self.tokens, "record": self.kinds},
            },
        }

    def flush(self) -> None:
        """Flush all rows to disk; to be called before the training saves a checkpoint."""
        if self._optimizer is not None and self._writes:
            self._wait()
            for recording in self._recordings:
                recording.sync()

    def close(self, status: str = "complete") -> None:
        """Write what is pending, cut the files after the last recorded row, and remove the hooks."""
        if self._optimizer is None:
            return
        self._optimizer = None
        with self._opened:
            if not self._writes:
                return
            self._wait()
            for recording in self._recordings if not self._ended else ():
                recording.shorten()
            if not self._ended:
                self._folder.set_status(status)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close("complete" if kind is None else "interrupted")

    def _looked_up(self, module: Any, inputs: tuple[Any, ...]) -> None:
        """Mark the tokens that a forward pass looks up."""
        if module.training and inputs:
            one = self._watched[0]
            if one.seen is None:
                one.seen = inputs[0].new_zeros(module.num_embeddings, dtype=bool)
            # `seen[ids] = True` would start torch's threads, and wait for them.
            one.seen.index_fill_(0, inputs[0].reshape(-1).long(), True)

    def _is_recorded(self, step: int) -> bool:
        return (step - self.first) % self.every == 0

    def _before(self, *_: Any) -> None:
        if self._is_recorded(self.done + 1):
            for one in self._watched:
                one.before = one.rows()

    def _after(self, optimizer: Any, *_: Any) -> None:
        self.done += 1
        if self._is_recorded(self.done):
            states = [updates.words_of(tensor) for one in self._watched for tensor in one.measure(optimizer)]
            if self._writes:
                self._submit(states)
        for one in self._watched:
            one.seen = one.before = None
        if self.alarm and self.on_alarm == "stop":
            raise self.alarm

    def _wait(self) -> None:
        while self._pending:
            self._pending.popleft().result()

    def _submit(self, states: list[np.ndarray]) -> None:
        """Give a step to the thread that writes; wait where too many are pending."""
        while self._pending and self._pending[0].done():
            self._pending.popleft().result()
        if len(self._pending) >= self._room:
            if not self._was_full:
                print(f"{self.out}: the disk is slower than the training, whose steps wait for it", file=sys.stderr)
            self._was_full = True
            self._pending.popleft().result()
        self._pending.append(self._pool.submit(self._land, self.done, states))
        if self.on_alarm == "stop":
            self._wait()

    def _land(self, step: int, states: list[np.ndarray]) -> None:
        """Write a step, and raise its alarms."""
        time.sleep(0)  # releases Python's lock, so that the step goes on first
        if self._ended:
            return
        try:
            for recording, state in zip(self._recordings, states, strict=True):
                recording.extend(state[None])
            for kind, rows in self._alarms(states[0], states[1].view(np.float32)):
                self._raise(step, kind, np.flatnonzero(rows))
        except DiskFull:
            self._ended = True
            warnings.warn(f"step {step:,}: {SENTENCES['disk']} ({self.out})", RuntimeWarning, stacklevel=2)

    def _alarms(self, words: np.ndarray, update: np.ndarray) -> Iterable[tuple[str, np.ndarray]]:
        """Yield each kind of alarm, and for which rows [k] it holds after a step."""
        norms = update[:, updates.UPDATE_COLUMNS.index("gradient_norm")]
        driven = norms[norms > 0]
        if len(driven) > 1:
            yield "steep", norms > LIMITS["steep"] * _middle(driven)
        causes = np.nan_to_num(update[:, updates.UPDATE_COLUMNS.index("causes")]).astype(np.int64)
        yield "untrained", self._start["equal"] & ((causes & updates.IN_BATCH) > 0)
        for kind, rows in self._inspect(words).items():
            yield kind, rows if kind == "broken" else rows & ~self._start[kind]

    def _inspect(self, words: np.ndarray) -> dict[str, np.ndarray]:
        """Mark the rows that equal another bit for bit, those far shorter than the median, and those not finite."""
        groups = identical_rows(words, threads=1)
        values = decode(words, self._grid)
        norms = np.linalg.norm(values, axis=1)
        return {
            "equal": groups.counts[groups.labels] > 1,
            "short": norms <= LIMITS["short"] * _middle(norms),
            "broken": ~np.isfinite(values).all(1),
        }

    def _raise(self, step: int, kind: str, rows: np.ndarray) -> None:
        """Report an alarm for the tokens that it was not reported for before."""
        tokens = [int(row) if self.tokens is None else self.tokens[row] for row in rows.tolist()]
        if not (fresh := [token for token in tokens if (kind, token) not in self._said]):
            return
        self._said |= {(kind, token) for token in fresh}
        with (self.out / ALARMS).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, "kind": kind, "tokens": fresh}) + "\n")
        said = f"step {step:,}: {SENTENCES[kind]}{listed(list(map(str, fresh)), 8)}"
        if self.on_alarm == "warn":
            warnings.warn(said, RuntimeWarning, stacklevel=2)
        elif self.on_alarm == "stop":
            self.alarm = self.alarm or Alarm(said)

    def _cut_alarms(self) -> None:
        """Remove alarms after the step that the training goes on from."""
        path = self.out / ALARMS
        lines = path.read_text("utf-8").splitlines(keepends=True) if path.is_file() else []
        alarms = (json.loads(line) for line in lines if line.endswith("\n"))  # the last one may be cut
        kept = [alarm for alarm in alarms if alarm["step"] <= self.done]
        self._said = {(alarm["kind"], token) for alarm in kept for token in alarm["tokens"]}
        path.write_text("".join(json.dumps(alarm) + "\n" for alarm in kept), "utf-8")

    def callback(self) -> Any:
        """Return a callback for transformers' Trainer, and for those made of it."""
        base = import_extra("transformers", "train", "Recorder.callback").TrainerCallback
        steps: dict[str, Callable[..., None]] = {
            "on_train_begin": lambda *of, model, optimizer, **_: self.step(model, optimizer, of[2].global_step),
            "on_step_end": lambda *_, model, optimizer, **__: self.step(model, optimizer),
            "on_save": lambda *_, **__: self.flush(),
            "on_train_end": lambda *_, **__: self.close(),
        }
        return type("RecorderCallback", (base,), steps)()

    def lightning(self) -> Any:
        """Return a callback for Lightning's Trainer."""
        base = import_extra("lightning.pytorch", "lightning", "Recorder.lightning").Callback
        steps: dict[str, Callable[..., None]] = {
            "on_train_start": lambda _, trainer, module: self.step(module, trainer.optimizers[0], trainer.global_step),
            "on_train_batch_end": lambda _, trainer, module, *__: self.step(module, trainer.optimizers[0]),
            "on_save_checkpoint": lambda *_: self.flush(),
            "on_exception": lambda *_: self.close("interrupted"),
            "on_train_end": lambda *_: self.close(),
        }
        return type("RecorderCallback", (base,), steps)()


def _middle(values: np.ndarray) -> Any:
    """Return the upper median; NaN counts as the largest."""
    return np.partition(values, len(values) // 2)[len(values) // 2]


def _check(parameter: Any, name: str, optimizer: Any) -> None:
    """Raise InvalidInput where a parameter cannot be recorded."""
    if parameter.ndim != 2:
        raise InvalidInput(ERRORS["no_matrix"].format(name=name, shape=list(parameter.shape)))
    if parameter.device.type == "meta":
        raise InvalidInput(ERRORS["offloaded"].format(name=name))
    if not any(one is parameter for group in optimizer.param_groups for one in group["params"]):
        raise InvalidInput(f"the optimizer does not change the {name}; give it the optimizer that does")
