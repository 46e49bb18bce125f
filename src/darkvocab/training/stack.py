"""Trainings of several seeds with the same settings, stepped together on a device; one alone is a stack of one."""

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..errors import InvalidInput
from ..extras import import_torch
from ..gpu.device import torch_device
from ..runs.folder import fixed
from . import updates
from .batched import BATCHED, BatchedPasses
from .cpu_passes import CpuPasses, array, single_threaded
from .model import TOKEN_EMBEDDING, Layout, begin, save, scalar_dtype, views
from .noise_stream import NOISE, ROUNDING, bits, key, normals, splitmix64
from .settings import PATHS, Training

SPAN = 256  # most steps between two copies of recorded states to the host
STAGED = 1 << 27  # bytes of states recorded in a span, about
MOST_TRAININGS = 16  # in a stack: with more, the output of one call leaves a GPU's cache before the next call reads it
WARM_UPS = 3  # calls before a capture, as torch's documentation says: libraries allocate workspaces in these
ONE_CORE = 1 << 22  # most weights that one core updates alone: for so few, synchronising threads costs more


class Segment(NamedTuple):
    """States and metrics of steps `first + 1` to `last`, while they are copied from the device."""

    first: int
    last: int
    wait: Callable[[], None]
    staged: tuple[Any, ...]  # the device's tensors, which must live until they are copied
    arrived: tuple[Any, ...]


class Stack:
    """R trainings that differ in their seeds, with states [R, n]; all have made the same number of steps.

    Each depends on its own settings alone, but for the order of sums within a product. A replica that diverges goes on
    with meaningless numbers, which the others never read.

    A step is a function on fixed tensors, so that a CUDA graph can replay it: batches, learning rates and random keys
    come from tables that are filled for `span` steps, and recorded states go to ring buffers of that length. On the
    CPU a span is one step.

    A torch `device` runs `BatchedPasses`. By default it is the trainings' device, and one training on the CPU runs
    `CpuPasses` on `cores`, by default all, whose number never changes a result.
    """

    def __init__(
        self, trainings: Sequence[Training], device: Any = None, *, span: int | None = None, cores: int | None = None
    ) -> None:
        torch = self._torch = import_torch("train")
        training = self.training = trainings[0]
        self.trainings = trainings
        shared = [{**fixed(each.manifest()), "seed": None} for each in trainings]
        if any(other != shared[0] for other in shared):
            raise InvalidInput("trainings that are made together may differ in nothing but their seeds")
        self._on_cores = device is None and training.device == "cpu" and len(trainings) == 1
        self._cores = cores
        self.device = device = device or torch_device(training.device)
        self.span = span or (1 if self._on_cores else _span(training, len(trainings)))
        self.made = 0  # steps
        self._fetching: Any = None  # the CUDA stream that copies to the host
        with self.on_device():
            self._begin()
            self._lay_out()
            # Tensors that a step changes and the next one reads.
            self._changing = [*self._optimizer.changing, self._shown, self._words, self._narrow, self._done]
            self._replay = captured(torch, device, self._step, self._changing)

    @contextmanager
    def on_device(self) -> Iterator[None]:
        """Work on the device, with products summed in float32, and without TF32."""
        torch = self._torch
        matmul = torch.backends.cuda.matmul
        if self.device.type != "cuda":
            yield
            return
        # Where torch has the newer flag for TF32, reading the older one is an error.
        flag, full = ("fp32_precision", "ieee") if hasattr(matmul, "fp32_precision") else ("allow_tf32", False)
        before = matmul.allow_bf16_reduced_precision_reduction, getattr(matmul, flag)
        matmul.allow_bf16_reduced_precision_reduction = False
        setattr(matmul, flag, full)
        try:
            with torch.cuda.device(self.device):
                yield
        finally:
            matmul.allow_bf16_reduced_precision_reduction = before[0]
            setattr(matmul, flag, before[1])

    def _begin(self) -> None:
        """Set up the weights, in each dtype that something reads; copies of one dtype are one tensor."""
        torch = self._torch
        training = self.training
        precision = training.precision_policy
        models = [begin(torch, each) for each in self.trainings]
        self._model = models[0]
        self._layout = layout = Layout.of(self._model)
        start = torch.stack([layout.vector(torch, model) for model in models]).to(self.device)
        self._shown = start.to(getattr(torch, precision.weights)).float()
        self._narrow = self._shown.to(getattr(torch, precision.factors))  # the same tensor where that is float32
        # `_words` are in the grid of the weights; the optimizer changes the master weights.
        self._words = self._narrow if precision.weights == precision.factors else self._shown
        self._master = self._words if precision.optimizer == precision.weights else self._shown
        self._embedding = views(self._words, layout)[TOKEN_EMBEDDING]
        paths = "paths" in training.record
        on_cores = partial(CpuPasses, products=training.multiplied_in, cores=self._cores, has_paths=paths)
        passes: Any = on_cores if self._on_cores else BatchedPasses
        self._passes = passes(torch, training.architecture, layout, self._shown, self._narrow, training.batch)
        self._gradient = torch.zeros_like(self._master)
        optimizer = BATCHED[type(training.optimizer)]
        self._optimizer = optimizer(torch, training.optimizer, layout, self._master, self._gradient)
        if training.rounding == "kahan":
            self._rest = torch.zeros_like(self._words)  # the rounding error, added to the next step
            self._optimizer.changing.append(self._rest)
            for state, row in zip(self._optimizer.states, self._rest, strict=True):
                state["rest"] = row

    def _lay_out(self) -> None:
        """Set up the corpus, the tables and the ring buffers."""
        torch = self._torch
        training = self.training
        device = self.device
        n = len(self.trainings)

        def zeros(*shape: int, dtype: Any = torch.int64) -> Any:
            return torch.zeros(shape, dtype=dtype, device=device)

        self._ids = torch.from_numpy(training.corpus.ids.astype(np.int64)).to(device)
        self._targets = self._ids.roll(-training.label_shift)
        self._offsets = torch.arange(training.architecture.context, device=device)
        self._unseen = zeros(training.corpus.n_vocabulary, 1, dtype=torch.bool)
        self._unseen[torch.from_numpy(training.corpus.unseen).to(device)] = True
        width = training.architecture.width  # divides the size of every parameter
        rows = torch.tensor([shape.numel() // width for _, shape in self._layout.places.values()])
        # [n / width, parameters]: 1 where a row belongs to a parameter
        self._parts = torch.eye(len(rows)).repeat_interleave(rows, 0).to(device)
        self._done = zeros(1)  # steps made
        self._starts = zeros(self.span, n, training.batch)
        scalar = scalar_dtype(torch, device)
        self._rates = zeros(self.span, dtype=scalar)
        self._keys = zeros(self.span, 2, n)
        self._seeds = [torch.tensor([int(key(each.seed, use)) for each in self.trainings]) for use in (NOISE, ROUNDING)]
        self._measured = zeros(self.span, n, 2, dtype=scalar)
        n_slots = -(-(self.span - 1) // training.record_every) + 1
        shape = n_slots, n, self._embedding[0].numel()
        # In the order of the run folder's recordings.
        self._rings = {kind: zeros(*shape, dtype=self._words.dtype) for kind in ("words", *training.kinds)}
        if "updates" in training.record:
            self._before = torch.empty_like(self._embedding)
            n_columns = training.corpus.n_vocabulary * len(updates.UPDATE_COLUMNS)
            self._rings["updates"] = zeros(n_slots, n, n_columns, dtype=torch.float32)

    def _step(self) -> None:
        torch = self._torch
        training = self.training
        on_one_core = self._on_cores and self._shown.numel() <= ONE_CORE
        with torch.no_grad(), single_threaded(torch) if on_one_core else nullcontext():
            at = self._done % self.span
            slot = (self._done // training.record_every) % len(self._rings["words"])
            starts = self._starts.index_select(0, at).view(len(self.trainings), -1, 1)
            positions = (starts + self._offsets).flatten(1)
            inputs = torch.take(self._ids, positions)
            losses = self._passes(inputs, torch.take(self._targets, positions))
            self._passes.gradient(self._gradient)
            norms = self._norms()
            self._record("gradient", slot, self._gradient)
            if "paths" in training.record:
                for kind, rows in zip(PATHS, self._passes.paths(), strict=True):
                    self._rings[kind].index_copy_(0, slot, rows.flatten(1).to(self._words.dtype)[None])
            if training.clip is not None:  # as torch.nn.utils does, in the gradient's dtype
                self._gradient.mul_(torch.clamp(training.clip / (norms + 1e-6), max=1.0)[:, None])
            torch.index_select(self._rates, 0, at, out=self._optimizer.rate)
            if "updates" in training.record:
                self._before.copy_(self._embedding)
                row_norms = self._rows(self._gradient).norm(dim=-1, dtype=torch.float32)
            if training.rounding == "kahan":
                self._master.add_(self._rest)
            self._optimizer.step()
            keys = self._keys.index_select(0, at)[0]
            self._round(keys)
            if "updates" in training.record:
                self._record_updates(slot, inputs, row_norms)
            if training.noise is not None:
                self._add_noise(keys[NOISE], training.noise)
            self._spread()
            for kind, vectors in {"words": self._words, **self._optimizer.moments}.items():
                self._record(kind, slot, vectors)
            measured = [each.to(self._measured.dtype) for each in (losses, norms)]
            self._measured.index_copy_(0, at, torch.stack(measured, -1)[None])
            self._done += 1

    def _record(self, kind: str, slot: Any, vectors: Any) -> None:
        if kind in self._rings:
            part = vectors[:, self._layout.places[TOKEN_EMBEDDING][0]]
            self._rings[kind].index_copy_(0, slot, part.to(self._words.dtype)[None])

    def _rows(self, vectors: Any) -> Any:
        """View the embedding's part of vectors [R, n] as rows [R, vocabulary, dim]."""
        return vectors[:, self._layout.places[TOKEN_EMBEDDING][0]].view(self._embedding.shape)

    def _record_updates(self, slot: Any, inputs: Any, norms: Any) -> None:
        """Record what the optimizer's step did to the embedding's rows, before noise is added."""
        settings = self.training.optimizer
        seen = norms.new_zeros(norms.shape, dtype=self._torch.bool).scatter_(1, inputs, True)
        driving = self._rows(next(iter(self._optimizer.moments.values()), self._gradient))
        rows = (each.flatten(0, 1) for each in (self._before, self._embedding, driving, norms, seen))
        columns = updates.compare(*rows, decays=bool(settings.weight_decay and settings.learning_rate))
        self._rings["updates"].index_copy_(0, slot, columns.view(1, len(norms), -1))

    def _norms(self) -> Any:
        """Return norms [R] of the gradients from those of the parameters, as torch.nn.utils.get_total_norm does."""
        torch = self._torch
        if self._on_cores:
            parts = [self._gradient[0, part] for part, _ in self._layout.places.values()]
            return torch.nn.utils.get_total_norm(parts)[None]
        # On a GPU one product sums all parameters; the last bits differ.
        rows = self._gradient.view(len(self._gradient), -1, self.training.architecture.width)
        squares = torch.linalg.vector_norm(rows, dim=-1, dtype=torch.float32).square()
        of_parts = torch.sqrt(squares @ self._parts).to(self._gradient.dtype)
        return torch.linalg.vector_norm(of_parts, dim=-1)

    def _round(self, keys: Any) -> None:
        """Round the updated master weights to the weights' grid."""
        torch = self._torch
        if self.training.rounding == "stochastic":
            # Adding 16 random bits to a float32 carries into its upper half with probability lower half / 2**16.
            patterns = self._master.view(torch.int32)
            patterns.add_(bits(torch, keys[ROUNDING], patterns.shape[1])).bitwise_and_(-(1 << 16))
        if self._words is not self._master:
            self._words.copy_(self._master)
        if self.training.rounding == "kahan":
            torch.sub(self._master, self._words, out=self._master)  # exact
            self._rest.copy_(self._master)

    def _add_noise(self, keys: Any, noise: Any) -> None:
        torch = self._torch
        rows = self._embedding
        drawn = normals(torch, keys, rows[0].numel(), torch.float32).view(rows.shape)
        moved = rows + drawn.to(rows.dtype) * noise.sigma  # in the weights' grid, as `randn_like` would be
        rows.copy_(moved if noise.rows == "all" else torch.where(self._unseen, moved, rows))

    def _spread(self) -> None:
        """Copy the rounded weights into the tensors of other dtypes."""
        for copy in (self._shown, self._narrow):
            if copy is not self._words:
                copy.copy_(self._words)

    def segments(self, until: int) -> Iterator[Segment]:
        """Make the steps up to `until`; yield their states and metrics while the device goes on."""
        while self.made < until:
            with self.on_device():
                first, last = self.made, min(until, (self.made // self.span + 1) * self.span)
                self._feed(first, last)
                for _ in range(first, last):
                    self._replay()
                self.made = last
                segment = self._fetch(first, last)
            yield segment

    def read(self, segment: Segment) -> tuple[list[np.ndarray], np.ndarray]:
        """Wait for a segment; return words [n, R, vocabulary * dim] of each recording, and metrics [steps, R, 3]."""
        segment.wait()
        *kinds, measured = map(array, segment.arrived)
        rates = [self.training.learning_rate(step) for step in range(segment.first + 1, segment.last + 1)]
        each = np.repeat(np.array(rates)[:, None, None], len(self.trainings), 1)
        return [kind.view(f"u{kind.itemsize}") for kind in kinds], np.concatenate([measured, each], 2, dtype=np.float64)

    def _feed(self, first: int, last: int) -> None:
        """Fill the tables for steps first + 1 to last."""
        n = last - first
        starts = [each.starts(first + 1, n).reshape(n, -1) for each in self.trainings]
        self._upload(self._starts, np.stack(starts, 1), first)
        rates = [self.training.learning_rate(step) for step in range(first + 1, last + 1)]
        self._upload(self._rates, np.array(rates), first)
        if self.training.is_random:
            drawn = [splitmix64(self._torch, keys, n, first) for keys in self._seeds]
            self._upload(self._keys, np.stack([array(each.T.contiguous()) for each in drawn], 1), first)

    def _upload(self, table: Any, values: np.ndarray, first: int) -> None:
        content = self._torch.from_numpy(values).to(table.dtype)
        if self.device.type == "cuda":
            content = content.pin_memory()  # otherwise the copy waits for earlier steps
        at = first % self.span
        table[at : at + len(values)].copy_(content, non_blocking=True)

    def _fetch(self, first: int, last: int) -> Segment:
        """Start to copy the states and metrics of these steps to the host."""
        torch = self._torch
        every = self.training.record_every
        slots = torch.arange(first // every, last // every, device=self.device) % len(self._rings["words"])
        staged = [ring[slots] for ring in self._rings.values()]
        staged.append(self._measured[first % self.span :][: last - first].clone())
        if self.device.type != "cuda":
            arrived = [each.cpu() for each in staged]
            return Segment(first=first, last=last, wait=lambda: None, staged=(), arrived=tuple(arrived))
        if self._fetching is None:
            self._fetching = torch.cuda.Stream()
        self._fetching.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._fetching):
            arrived = [torch.empty(each.shape, dtype=each.dtype, pin_memory=True) for each in staged]
            for copy, original in zip(arrived, staged, strict=True):
                copy.copy_(original, non_blocking=True)
            event = self._fetching.record_event()
        return Segment(first=first, last=last, wait=event.synchronize, staged=tuple(staged), arrived=tuple(arrived))

    def rows(self, replica: int) -> np.ndarray:
        """Return the embedding of one replica, as words of the weights' grid."""
        return updates.words_of(self._embedding[replica])

    def state(self, replica: int) -> dict[str, Any]:
        """Return all that the next steps of one replica depend on, as named tensors: a checkpoint."""
        tensors = self._optimizer.states[replica]
        if isinstance(self._passes, CpuPasses):
            tensors = {**tensors, "blocks": self._torch.tensor(self._passes.n_blocks)}
        return {name: tensor.cpu().contiguous().clone() for name, tensor in tensors.items()}

    def load(self, replica: int, tensors: dict[str, Any], done: int) -> None:
        """Go on from a checkpoint after `done` steps, which must be the same for every replica."""
        for name, tensor in self._optimizer.states[replica].items():
            tensor.copy_(tensors[name])
        if isinstance(self._passes, CpuPasses):
            self._passes.n_blocks = max(1, int(tensors["blocks"]))  # whatever cores this machine has
        if self._words is not self._master:
            self._words.copy_(self._master)
        self._spread()
        self.made = done
        self._done.fill_(done)

    def save(self, replica: int, folder: Path) -> None:
        """Write one replica's model as transformers loads it, in the weights' grid."""
        weights = self._shown[replica].cpu()
        for name, parameter in self._model.named_parameters():
            part, shape = self._layout.places[name]
            parameter.data = weights[part].view(shape)
        save(self._model, self._words.dtype, folder)


def captured(torch: Any, device: Any, function: Callable[[], None], state: Sequence[Any]) -> Callable[[], None]:
    """Capture `function` in a CUDA graph and return the graph's replay; on other devices return `function`.

    It works on fixed tensors and never waits. `state` are the tensors that it changes and reads again: restored here.
    """
    if device.type != "cuda":
        return function
    before = [tensor.clone() for tensor in state]
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UPS):
            function()
    torch.cuda.current_stream().wait_stream(stream)
    gc.collect()  # an old graph must not be freed while another is captured
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):  # torch's default stream is on the card that captured first
        function()
    for tensor, value in zip(state, before, strict=True):
        tensor.copy_(value)
    replay: Callable[[], None] = graph.replay
    return replay


def stack_size(torch: Any, training: Training) -> int:
    """Estimate how many such trainings fit in device memory, at most `MOST_TRAININGS`."""
    if (device := torch_device(training.device)).type != "cuda":
        return MOST_TRAININGS
    architecture = training.architecture
    width = architecture.width
    positions = training.batch * architecture.context
    size = 2 if training.precision_policy.factors == "bfloat16" else 4
    scores = size * positions * architecture.heads * architecture.context
    layer = positions * width * (4 * 4 + 14 * size) + scores  # saved for the backward pass
    passing = 3 * scores + positions * (12 * width * size + 5 * training.corpus.n_vocabulary * 4)
    weights = 40 * width * (training.corpus.n_vocabulary * (1 + (not architecture.tied)) + architecture.context)
    weights += 40 * 13 * width**2 * architecture.layers
    free = torch.cuda.mem_get_info(device)[0] - 4 * STAGED
    return int(max(1, min(MOST_TRAININGS, free // (2 * (architecture.layers * layer + passing + weights)))))


def _span(training: Training, n: int) -> int:
    """Return the number of steps of n replicas between two copies to the host."""
    state = 4 * training.corpus.n_vocabulary * training.architecture.width * n * (1 + 3 * bool(training.record))
    return max(1, min(SPAN, STAGED * training.record_every // state))
