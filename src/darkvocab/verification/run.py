"""Verify: ask a model to repeat its tokens, and keep every answer in a run folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..checkpoints.scan import scan
from ..checkpoints.scan_result import Scan
from ..checkpoints.selection import asked_for
from ..errors import InvalidInput, MissingFile, at_least
from ..gpu.device import check_device
from ..measures.verdict import Verification, judge
from ..runs.engine import open_engine
from ..runs.folder import check_folder, repeating, versions
from ..runs.randomness import check_seed
from ..runs.records import RunFolder, frame_of, read_records
from ..sources import open_source
from ..sources.tokenizer import tokenizer_of
from ..text import Shown, finite
from .frames import ERRORS, Frame, Text, encoded, read_frames
from .model import PLACES, Model, open_model, open_template
from .tokens import Answered, choose

if TYPE_CHECKING:
    import polars as pl

    from .server import Server

RECORDED_SETTINGS = ("controls", "missed", "chat", "dtype")
RUN_OPTIONS = ("device", "seed", "endpoint", "model", "api_key_env")


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Verify(Shown):
    """Settings of a verification: the model, the tokens to ask for, and the frames."""

    source: str
    tokens: str | Iterable[int] = "graded"  # graded, dark, weak, all, or as `checkpoints.selection.select`
    controls: int = 200  # trained tokens like those asked for, to show how a learned token does
    missed: int = 500  # other trained tokens, to estimate how many the weights did not name
    chat: bool = False  # through the model's chat template
    frames: str | Path | None = None  # a file of frames; by default ours
    dtype: str = "auto"
    device: str = "cpu"
    seed: int = 0
    # To ask instead of the source: a `Model`, or its `logits`; with an endpoint the name of its model.
    model: Any = field(default=None, repr=False)
    endpoint: str | None = None  # URL of a server to ask instead
    api_key_env: str | None = None  # name of the environment variable with its key

    def __post_init__(self) -> None:
        if not isinstance(self.tokens, str):
            object.__setattr__(self, "tokens", tuple(self.tokens))
        check_seed(self.seed)
        check_device(self.device)
        at_least(0, controls=self.controls, missed=self.missed)
        if self.endpoint is None and (self.api_key_env or isinstance(self.model, str)):
            raise InvalidInput("the name of a model or of a key is for a server; give its URL by --endpoint")
        if self.endpoint is not None and not isinstance(self.model, str | None):
            raise InvalidInput("a model in memory is asked without an endpoint; of one, give the model's name")

    @cached_property
    def scanned(self) -> Scan:
        """Grades of all tokens, by the weights."""
        return scan(self.source)

    @cached_property
    def chosen(self) -> tuple[list[Any], list[int]]:
        """Tokens to ask for, and the sizes of the strata of the missed, as `choose`."""
        asked = asked_for(self.tokens, self.scanned)
        return choose(self.scanned, asked, n_controls=self.controls, n_missed=self.missed, seed=self.seed)

    @cached_property
    def asking(self) -> tuple[Model | Server, list[Frame]]:
        """Model, and the frames in its ids."""
        texts, _ = read_frames(self.frames)  # before a model is opened, which takes long
        model = self.model
        if self.endpoint is not None:
            model = self._server(texts)
        elif model is None:
            model = open_model(self.source, dtype=self.dtype, device=self.device)
        elif not isinstance(model, Model):
            model = Model(logits=model, encode=_encoder(self.source), device=self.device)
        if self.chat and model.templated is None:
            raise InvalidInput("the model was given without a chat template")
        frames = [encoded(text, model.encode, model.templated if self.chat else None) for text in texts]
        longest = max(frames, key=lambda frame: len(frame.ids))
        length = len(longest.ids)
        if model.context is not None and length + PLACES > model.context:
            raise InvalidInput(ERRORS["too_long"].format(frame=longest, length=length, context=model.context))
        return model, frames

    def _server(self, texts: list[Text]) -> Server:
        """Open the server, with the chat template of the source if it has none itself."""
        from .connection import Connection
        from .server import open_server

        rows = self.scanned.tokens.select("id", "bytes").iter_rows()
        spelled = {token: held and bytes.fromhex(held).decode("utf-8", "replace") for token, held in rows}
        encode = None
        with suppress(MissingFile):  # the server may have one
            encode = _encoder(self.source)
        connection = Connection(str(self.endpoint), self.api_key_env)
        server = open_server(connection, self.model, spelled, texts, encode)
        if self.chat and server.templated is None:
            server.templated = open_template(self.source)
        return server

    @property
    def n_answers(self) -> int:
        """Number of records of one token."""
        return len(self.asking[1]) * PLACES

    @property
    def _is_in_memory(self) -> bool:
        return self.model is not None and self.endpoint is None

    @property
    def parameters(self) -> dict[str, Any]:
        """Settings in a manifest."""
        return {
            **{name: getattr(self, name) for name in RECORDED_SETTINGS},
            "tokens": self.tokens if isinstance(self.tokens, str) else ",".join(map(str, self.tokens)),
            "frames": [f"{frame.name}: {frame.placeholder}" for frame in self.asking[1]],
            "strata": self.chosen[1],
            **self.asking[0].facts(),
        }

    def manifest(self) -> dict[str, Any]:
        """Return the settings of the run, without place and time."""
        _, sha256 = read_frames(self.frames)
        options: dict[str, Any] = {name: getattr(self, name) for name in (*RECORDED_SETTINGS, *RUN_OPTIONS)}
        options["model"] = None if self._is_in_memory else self.model
        frames = None if self.frames is None else str(Path(self.frames).absolute())
        asked = self.parameters["tokens"]
        source = str(Path(self.source).absolute()) if Path(self.source).exists() else self.source
        obstacle = "its model was handed over in memory" if self._is_in_memory else None
        return {
            "experiment": "verify",
            **repeating("verify", options | {"frames": frames, "tokens": asked}, DEFAULTS, obstacle, source),
            "parameters": self.parameters,
            "seed": self.seed,
            "packages": versions(*(("torch", "transformers") if self.endpoint is None else ("httpx2",))),
            "inputs": [
                {"source": self.source, "sha256": self.scanned.source.sha256},
                {"frames": str(self.frames or "darkvocab's"), "sha256": sha256},
            ],
            "n_records": len(self.chosen[0]) * self.n_answers,
        }

    def run(
        self,
        out: str | Path | None = None,
        *,
        resume: bool = False,
        engine: str | Executor = "serial",
        workers: int | None = None,
        progress: Callable[[int, int], None] | None = None,
        say: Callable[[str], None] = lambda text: None,
    ) -> pl.DataFrame:
        """Ask for all tokens and return the answers, `Answered`; raises as `open_model` and `RunFolder`.

        Parameters
        ----------
        out, resume : a run folder for the answers, and whether to continue the run in it
        engine, workers : as `open_engine`; each worker opens a model of its own. One in memory is asked by this process
        progress : called with (answers, answers in all)
        """
        if self._is_in_memory and engine != "serial":
            raise InvalidInput("a model in memory is asked by this process; leave out the engine")
        if resume and out is None:
            raise InvalidInput("--resume needs the --out folder of the run to go on with")
        if out is not None:
            check_folder(Path(out), ())
        with ExitStack() as opened:
            runner = opened.enter_context(open_engine(engine, workers, say=say))
            manifest = self.manifest()
            size = self._part_size()
            folder = None
            if out is not None:
                opening = RunFolder(out, Answered, manifest, records_per_part=size, resume=resume)
                folder = opened.enter_context(opening)
                size = folder.parts.size  # a run that goes on keeps to its parts
            missing = folder.parts.missing() if folder else list(range(-(-manifest["n_records"] // size)))
            n_done = folder.parts.n_landed if folder else 0
            tokens = size // self.n_answers
            chosen, _ = self.chosen
            tasks = (chosen[part * tokens : (part + 1) * tokens] for part in missing)
            answers: list[Any] = []
            for part, fresh in zip(missing, runner.map(_ask, self, tasks), strict=True):
                if folder:
                    folder.land(part, fresh)
                else:
                    answers += fresh
                n_done += len(fresh)
                if progress:
                    progress(n_done, manifest["n_records"])
            if folder and not folder.is_whole:
                folder.finish()
        return read_records(folder.path) if folder else frame_of(Answered, answers)

    def _part_size(self) -> int:
        """Return the number of answers about the tokens that are asked for together."""
        model, frames = self.asking
        length = max(len(frame.ids) for frame in frames) + PLACES
        return model.batch(length, len(self.scanned.tokens), _free_bytes()) * self.n_answers

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what a worker computes anew."""
        return {name: value for name, value in vars(self).items() if name in self.__dataclass_fields__}


DEFAULTS = {one.name: one.default for one in fields(Verify)}


def _encoder(source: str) -> Callable[[str], list[int]]:
    """Return a function from text to ids by the tokenizer of a source; MissingFile without one."""
    tokenizer = tokenizer_of(open_source(source))
    if tokenizer is None or tokenizer.encoder is None:
        raise MissingFile(f"there is no tokenizer beside {source} that encodes; hand over a Model with `encode`")
    return lambda text: tokenizer.encode([text])[0].tolist()


def _ask(settings: Verify, chosen: list[Any]) -> list[Any]:
    """Ask for the tokens of one part; the settings, which a worker unpickles once, cache the model."""
    model, frames = settings.asking
    tokens = np.array([one.token for one in chosen], np.int64)
    asked = ((frame.name, model.answers(frame, tokens)) for frame in frames)
    answers = [(frame, place, answer) for frame, places in asked for place, answer in enumerate(places)]

    def record(one: Any, frame: str, place: int, p: float, rank: int, token: int, bound: bool) -> Any:
        answer = {"answer": token if token >= 0 else None, "answer_text": model.decode(token)}
        columns = {"frame": frame, "place": place, "p": finite(p), "bound": bound, "rank": rank or None}
        return Answered(**vars(one), **columns, **answer)

    return [
        record(one, frame, place, *(part[number].item() for part in answer))
        for number, one in enumerate(chosen)
        for frame, place, answer in answers
    ]


def _free_bytes() -> int:
    """Return the available memory in bytes; 2 GiB where the system does not say."""
    try:
        said = Path("/proc/meminfo").read_text("ascii").partition("MemAvailable:")[2]
        return 1024 * int(said.split()[0])
    except (OSError, LookupError, ValueError):
        return 2 << 30


def verify(source: str | Path, out: str | Path | None = None, **given: Any) -> Verification:
    """Ask a model to repeat its tokens, and judge its answers; `given` is of `Verify` and of `Verify.run`."""
    running = {name: given.pop(name) for name in ("resume", "engine", "workers", "progress", "say") if name in given}
    settings = Verify(source=str(source), **given)
    return judge(settings.run(out, **running), settings.parameters)
