"""The model of a training: transformers' GPT-2, drawn from its seed, its parameters in one vector, and its passes."""

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
    """Build transformers' GPT2LMHeadModel of this size, drawn from torch's global generator, in float32.

    Its GELU is the fused one of the same formula.
    """
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
    model.loss_type = "ForCausalLM"  # else it says, on every start, that it takes this one
    if architecture.norm == "rmsnorm":
        for module in list(model.modules()):
            for name, child in module.named_children():
                if isinstance(child, torch.nn.LayerNorm):
                    setattr(module, name, torch.nn.RMSNorm(child.normalized_shape, eps=child.eps))
    return model


def scalar_dtype(torch: Any, device: Any) -> Any:
    """Return the dtype of losses and learning rates: the host's own, or what optimizers on a GPU read."""
    return torch.float64 if device.type == "cpu" else torch.float32


def begin(torch: Any, training: Training) -> Any:
    """Return a training's model before step 1, on the CPU; torch's global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.seed)  # the notebooks' order: model, its rounding, then the start
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
    """Read all weights of a model from a file; CorruptFile for a file that is none, InvalidInput for another model."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        lacking, others = model.load_state_dict(load_file(path), strict=False)
    except SafetensorError as error:
        raise CorruptFile(f"{path}: not a safetensors file ({error})") from None
    except RuntimeError as error:  # shapes, one to a line
        said = str(error).splitlines()[1].strip()
        raise InvalidInput(ERRORS["other_size"].format(path=path, said=said)) from None
    if lacking := set(lacking) - ({HEAD} if model.config.tie_word_embeddings else set()) | set(others):
        raise InvalidInput(f"{path} is of another model than this training's: {', '.join(sorted(lacking)[:4])}")


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Positions of a model's parameters in one vector: matrices, which decay, before vectors, which do not."""

    places: dict[str, tuple[slice, Any]]  # part and shape of each, by its name, in their order

    @classmethod
    def of(cls, model: Any) -> Self:
        places, at = {}, 0
        for name, parameter in sorted(model.named_parameters(), key=lambda item: item[1].dim() < 2):
            places[name] = slice(at, at + parameter.numel()), parameter.shape
            at += parameter.numel()
        return cls(places=places)

    @property
    def groups(self) -> dict[str, slice]:
        """Return the part that decays, and the one that does not."""
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
    """Forward and backward pass of R GPT-2s of one size, each with its own weights and batch of N = batch * T places.

    Called with tokens and what each place is to predict, [R, N] int64, they return mean losses [R]; `gradient(out)`
    writes that call's gradient [R, n] in the type of `out`; `paths()` returns the two parts of a tied embedding's,
    [R, vocabulary, width]: of the tokens that it looked up, and of the logits. The plain twin is transformers' model
    with autograd.

    All weights are in `wide`, [R, n], whose type sums, norms and losses have, and in `narrow` in the type of the
    products, bfloat16 or float32; a step has `batch` examples.
    """

    def __init__(
        self, torch: Any, architecture: Architecture, layout: Layout, wide: Any, narrow: Any, batch: int
    ) -> None:
        self.torch, self.architecture, self.layout = torch, architecture, layout
        self.wide, self.narrow = wide, narrow
        self.batch, self.length = batch, architecture.context
        self.n_predicted = batch * (self.length - 1)  # the last place of an example predicts nothing
        self.head = HEAD if HEAD in layout.places else TOKEN_EMBEDDING
        self.scale = (architecture.width // architecture.heads) ** -0.5  # of products of queries and keys


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
