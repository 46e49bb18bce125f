"""Build the model of a training, transformers' GPT-2; lay its parameters out in one vector; the passes' interface."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from ..errors import CorruptFile, InvalidInput
from ..extras import import_extra
from ..landing import write_whole
from .choices import ERRORS, HELD, Architecture, ModelStart
from .settings import Training

EPS = 1e-5  # of the norms
TOKEN_EMBEDDING, POSITION_EMBEDDING = "transformer.wte.weight", "transformer.wpe.weight"
HEAD = "lm_head.weight"  # of an untied model


def build(torch: Any, architecture: Architecture, n_vocabulary: int) -> Any:
    """Build transformers' GPT2LMHeadModel of this size in float32, with weights from torch's global generator."""
    transformers = import_extra("transformers", "train", "train")
    config = transformers.GPT2Config(
        vocab_size=n_vocabulary,
        n_positions=architecture.context,
        n_embd=architecture.width,
        n_layer=architecture.layers,
        n_head=architecture.heads,
        tie_word_embeddings=architecture.tied,
        **dict.fromkeys(("bos_token_id", "eos_token_id")),
        **HELD["gpt2"],
    )
    model = transformers.GPT2LMHeadModel(config)
    model.loss_type = "ForCausalLM"  # transformers warns where it has to guess this
    for module in list(model.modules()) if architecture.norm == "rmsnorm" else ():
        norms = {name: child for name, child in module.named_children() if isinstance(child, torch.nn.LayerNorm)}
        for name, norm in norms.items():
            setattr(module, name, torch.nn.RMSNorm(norm.normalized_shape, eps=norm.eps))
    return model


def scalar_dtype(torch: Any, device: Any) -> Any:
    """Return the dtype of losses and learning rates: Python's float64 on a CPU, float32 as optimizers on a GPU read."""
    return torch.float64 if device.type == "cpu" else torch.float32


def begin(torch: Any, training: Training) -> Any:
    """Return a training's model before step 1, on the CPU; torch's global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.seed)  # the notebooks draw in this order: the model, then the start
        model = build(torch, training.architecture, training.corpus.n_vocabulary)
        shape = training.corpus.n_vocabulary, training.architecture.width
        rows = training.start.rows(torch, shape, getattr(torch, training.precision_policy.weights))
    if rows is not None:
        with torch.no_grad():
            model.transformer.wte.weight.copy_(rows)
    if isinstance(training.start, ModelStart):
        _load(model, training.start.file)
    return model.train()


def _load(model: Any, path: Path) -> None:
    """Load all weights of a model; CorruptFile for no safetensors file, InvalidInput for one of another model."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        lacking, others = model.load_state_dict(load_file(path), strict=False)
    except SafetensorError as error:
        raise CorruptFile(f"{path}: not a safetensors file ({error})") from None
    except RuntimeError as error:  # lists tensors of other shapes, one to a line
        said = str(error).splitlines()[1].strip()
        raise InvalidInput(ERRORS["other_size"].format(path=path, said=said)) from None
    if lacking := set(lacking) - ({HEAD} if model.config.tie_word_embeddings else set()) | set(others):
        raise InvalidInput(f"{path} is of another model than this training's: {', '.join(sorted(lacking)[:4])}")


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Positions of a model's parameters in one vector: matrices, which decay, before vectors, which do not."""

    places: dict[str, tuple[slice, Any]]  # slice of the vector and shape of each parameter, by name

    @classmethod
    def of(cls, model: Any) -> Self:
        places = {}
        at = 0
        for name, parameter in sorted(model.named_parameters(), key=lambda item: item[1].dim() < 2):
            places[name] = slice(at, at + parameter.numel()), parameter.shape
            at += parameter.numel()
        return cls(places=places)

    @property
    def groups(self) -> dict[str, slice]:
        """Slices of the vector: matrices, which decay, and vectors, which do not."""
        end = max(part.stop for part, shape in self.places.values() if len(shape) > 1)
        return {"matrices": slice(end), "vectors": slice(end, None)}

    def vector(self, torch: Any, model: Any) -> Any:
        """Copy a model's parameters into a new vector [n]."""
        parameters = dict(model.named_parameters())
        return torch.cat([parameters[name].detach().reshape(-1) for name in self.places])


def views(vectors: Any, layout: Layout) -> dict[str, Any]:
    """Return views [R, ...] of the parameters in vectors [R, n]."""
    return {name: vectors[:, part].unflatten(1, shape) for name, (part, shape) in layout.places.items()}


class Passes:
    """Forward and backward pass of R GPT-2s of one size, each with its own weights and its own batch.

    A batch has N = batch * T positions. Called with token ids and targets, both [R, N] int64, passes return the mean
    losses [R]. `gradient(out)` then writes the gradient [R, n] in the dtype of `out`; `paths()` returns the two parts
    of a tied embedding's gradient, [R, vocabulary, width]: through the tokens looked up, and through the logits. The
    tests compare them with transformers' model and autograd.

    `wide` and `narrow` [R, n] hold the same weights: in float32, for sums, norms and losses, and in the dtype of the
    products, bfloat16 or float32.
    """

    def __init__(
        self, torch: Any, architecture: Architecture, layout: Layout, wide: Any, narrow: Any, batch: int
    ) -> None:
        self.torch = torch
        self.architecture = architecture
        self.layout = layout
        self.wide, self.narrow = wide, narrow
        self.batch = batch
        self.length = architecture.context
        self.n_predicted = batch * (self.length - 1)  # the last position of an example predicts nothing
        self.head = HEAD if HEAD in layout.places else TOKEN_EMBEDDING
        self.scale = (architecture.width // architecture.heads) ** -0.5  # of attention scores


def save(model: Any, weights: Any, folder: Path) -> None:
    """Write a model as transformers loads it, in the dtype `weights`."""
    from safetensors.torch import save as packed

    tied = model.config.tie_word_embeddings
    held = ((name, tensor) for name, tensor in model.state_dict().items() if not (tied and name == HEAD))
    tensors = {name: tensor.to(weights).cpu().contiguous() for name, tensor in held}
    model.config.dtype = weights
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(folder)
    write_whole(folder / "model.safetensors", packed(tensors, {"format": "pt"}))
