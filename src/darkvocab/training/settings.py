"""Settings of a training: checked fields, what follows from them, and the manifest."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from jaxtyping import Int64

from ..errors import InvalidInput, at_least, one_of
from ..extras import import_torch
from ..gpu.device import check_device
from ..runs.folder import repeating, versions
from ..runs.randomness import check_seed
from ..text import Shown
from . import choices
from .corpus import Corpus, examples, load_corpus

EXTRAS = ("gradients", "moments", "updates", "paths")
PATHS = ("input_gradient", "output_gradient")  # they add up to the gradient of a tied matrix


@dataclass(frozen=True, kw_only=True, repr=False)
class Training(Shown):
    """Settings of a training, checked; `darkvocab.train` runs it.

    By default 11.2c without its defects: from a snowball, with weights in bfloat16 and optimizer state in float32.
    """

    corpus: Corpus = field(default_factory=load_corpus)
    architecture: choices.Architecture = field(default_factory=choices.Architecture)
    start: choices.Start = field(default_factory=choices.SnowballStart)
    noise: choices.GaussianNoise | None = None
    precision: str = "bf16-weights"  # a key of `PRECISIONS`
    rounding: str = "nearest"  # for bf16-weights also "stochastic" or "kahan": steps add the last rounding error
    products: str = "auto"  # of bfloat16 numbers on a CPU: in "float32", in "bfloat16", or in the faster of both
    optimizer: choices.AdamW | choices.SGD = field(default_factory=choices.AdamW)
    schedule: str = "linear"  # of the learning rate, down to 0; or "constant"
    clip: float | None = 1.0  # largest Euclidean norm of the gradient
    batch: int = 32
    steps: int = 10_000
    label_shift: int = 1  # 2 as in the notebooks, where data set and model each shift by 1
    seed: int = 42
    device: str = "cpu"
    record_every: int = 1
    record: tuple[str, ...] = ()  # of `EXTRAS`, beside the embedding

    def __post_init__(self) -> None:
        check_seed(self.seed)
        at_least(1, batch=self.batch, steps=self.steps, record_every=self.record_every)
        for name, known in choices.NAMED.items():
            one_of(getattr(self, name), name, known)
        check_device(self.device)
        if unknown := [name for name in self.record if name not in EXTRAS]:
            raise InvalidInput(f"cannot record {unknown[0]!r}; choose of {', '.join(EXTRAS)}")
        factors = self.precision_policy.factors
        wrong = {  # by the name of the sentence in choices.toml
            "label_shift": self.label_shift not in (1, 2),
            "rounding": self.rounding != "nearest" and not self.precision_policy.rounded,
            "clip": self.clip is not None and not self.clip > 0,
            "steps": self.steps % self.record_every > 0,
            "products": self.products not in ("auto", factors) and (factors == "float32" or self.device != "cpu"),
            "moments": "moments" in self.record and not isinstance(self.optimizer, choices.AdamW),
            "paths": "paths" in self.record and not self.architecture.tied,
            "short_corpus": self.n_examples < 1,
        }
        if error := next((name for name, is_wrong in wrong.items() if is_wrong), None):
            raise InvalidInput(choices.ERRORS[error].format(training=self, factors=factors))

    @classmethod
    def of(cls, corpus: Corpus | None = None, **options: Any) -> Self:
        """Return settings from options of `darkvocab train`, by name; what is not given has its default."""
        shape = {item.name for item in dataclasses.fields(choices.Architecture)} & set(options)
        given = {item.name for item in dataclasses.fields(cls)} & set(options)
        named = {"start": "snowball", "noise": "none", "optimizer": "adamw", **options}
        parts: dict[str, Any] = {
            **{name: options[name] for name in given},
            "architecture": choices.Architecture(**{name: options[name] for name in shape}),
            "start": choices.chosen(choices.STARTS, named, "start", "init_"),
            "noise": choices.chosen(choices.NOISES, named, "noise", "noise_"),
            "optimizer": choices.chosen(choices.OPTIMIZERS, named, "optimizer"),
        }
        return cls(**parts) if corpus is None else cls(corpus=corpus, **parts)

    @property
    def precision_policy(self) -> choices.Precision:
        return choices.PRECISIONS[self.precision]

    @property
    def multiplied_in(self) -> str:
        """Dtype that products are computed in: as set, else float32 on a CPU without fast bfloat16."""
        if self.products == "auto" and self.device == "cpu" and not multiplies_bfloat16():
            return "float32"
        return self.precision_policy.factors if self.products == "auto" else self.products

    @property
    def is_random(self) -> bool:
        """Tell whether steps draw random numbers: noise, or stochastic rounding."""
        return self.noise is not None or self.rounding == "stochastic"

    @property
    def kinds(self) -> list[str]:
        """Names of what is recorded of the embedding besides its rows, in the order of `EXTRAS`."""
        names = {"gradients": ["gradient"], "moments": ["exp_avg", "exp_avg_sq"], "paths": list(PATHS)}
        return [name for extra, kinds in names.items() if extra in self.record for name in kinds]

    @property
    def n_examples(self) -> int:
        """Number of examples; example i is tokens i to i + context of the corpus."""
        return len(self.corpus.ids) - self.architecture.context

    def starts(self, step: int, steps: int = 1) -> Int64[np.ndarray, " n"]:
        """Return the first token of each example of the batches of `steps` steps from `step` on, counted from 1."""
        return examples(self.seed, self.n_examples, (step - 1) * self.batch, steps * self.batch)

    def learning_rate(self, step: int) -> float:
        """Return the learning rate of a step, counted from 1."""
        peak = self.optimizer.learning_rate
        return peak * (self.steps - step + 1) / self.steps if self.schedule == "linear" else peak

    def parameters(self) -> dict[str, Any]:
        """Return every setting but the seed and the inputs, for the manifest."""
        noise = self.noise
        return {
            **dataclasses.asdict(self.architecture),
            "start": self.start.name,
            **{f"init_{name}": value for name, value in dataclasses.asdict(self.start).items()},
            "noise": "none" if noise is None else "gaussian",
            **({} if noise is None else {"noise_sigma": noise.sigma, "noise_rows": noise.rows}),
            "precision": self.precision,
            "rounding": self.rounding,
            "optimizer": self.optimizer.name,
            **dataclasses.asdict(self.optimizer),
            **{name: getattr(self, name) for name in ("schedule", "clip", "batch", "steps", "label_shift")},
            "vocabulary": self.corpus.n_vocabulary,
            "n_unseen": len(self.corpus.unseen),
            "device": self.device,
            "record_every": self.record_every,
            "record": list(self.record),
        }

    def manifest(self) -> dict[str, Any]:
        """Return settings and inputs of the run as data, and the command if one repeats it, without place and time."""
        start = [self.start.identity()] if isinstance(self.start, choices.ModelStart) else []
        return {
            "experiment": "train",
            **repeating("train", self.options(), {}, self.unrepeatable()),
            "parameters": self.parameters(),
            "seed": self.seed,
            "packages": versions("torch", "transformers"),
            "inputs": [*self.corpus.inputs(), *start],
            "paths": self.corpus.paths(),
        }

    def unrepeatable(self) -> str | None:
        """Return why no command line repeats this training, or None where one does."""
        if self.corpus.path is None and not self.corpus.is_default:
            return "the corpus was given as token ids, not as a file"
        constants = (item for item in dataclasses.fields(self.optimizer) if item.name in ("betas", "eps", "momentum"))
        for constant in constants:
            value = getattr(self.optimizer, constant.name)
            if value != constant.default:
                return f"no option sets {constant.name} of the optimizer, which is {value}"
        return None

    def options(self) -> dict[str, Any]:
        """Return the options of `darkvocab train` that give these settings, by name."""
        without = ("n_unseen", "betas", "eps", "momentum")
        parameters = {name: value for name, value in self.parameters().items() if name not in without}
        others = {"products": self.products, "clip": self.clip or 0, "seed": self.seed}
        return {**self.corpus.paths(), **parameters, **others}


def multiplies_bfloat16() -> bool:
    """Tell whether torch multiplies bfloat16 matrices on this CPU in hardware, not by plain loops."""
    from llvmlite.binding import get_host_cpu_features

    torch = import_torch("train")
    has_library = torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    # With AVX-512 but without avx512bf16 the library emulates it, slower than float32. LLVM has no such name on Arm.
    return has_library and get_host_cpu_features().get("avx512bf16", True)
