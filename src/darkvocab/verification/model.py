"""Ask a model for its next tokens, by transformers on a CPU or a GPU, or by any function from ids to logits."""

import contextlib
import copy
import io
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int64

from ..errors import CorruptFile, InvalidInput, MissingFile, machine_errors, one_of
from ..extras import import_extra, import_torch
from ..sources.tokenizer import in_a_line
from .frames import Frame

PLACES = 3  # of an answer, decoded greedily
TOKENS_AT_ONCE = 64  # tokens that are asked for at once
MODEL_DTYPES = ("auto", "float32", "bfloat16", "float16")
VERIFY = "verify"  # the command, and the extra that it needs


class Answer(NamedTuple):
    """One place of a model's answer to a frame about a token, or arrays [batch] about several."""

    p: Any  # probability of the token, a float; NaN: it was not asked for
    rank: Any  # of the token, an integer; 1: the likeliest, 0: unknown
    token: Any  # the likeliest; -1: unknown
    bound: Any  # the probability is at most p, and may be less


@dataclass
class Model:
    """Causal language model, and the encoding of texts to its ids."""

    logits: Any  # a causal model of transformers, or a function: ids [batch, length] to logits [batch, length, tokens]
    encode: Callable[[str], list[int]]  # with special tokens that the model expects before a text
    templated: Callable[[str], str] | None = None  # text to a user's message, up to the answer
    decode: Callable[[int], str | None] = lambda token: None
    device: str = "cpu"
    context: int | None = None  # positions
    bytes_a_position: int = 0  # of keys and values of one text

    def __post_init__(self) -> None:
        self._kept: dict[Frame, Any] = {}  # keys and values of each frame's beginning; None where there are none

    def answers(self, frame: Frame, tokens: Int64[np.ndarray, " batch"]) -> Iterator[Answer]:
        """Yield the answer's places in order; each continues the model's greedy answer before it.

        Raises CorruptFile where a logit is NaN, InvalidInput where a token is beyond the model's.
        """
        torch = import_torch(VERIFY, VERIFY)
        asked = torch.tensor(tokens, device=self.device)
        rows = torch.tensor(frame.rest(tokens), device=self.device)
        with torch.inference_mode(), _having(max(tokens.max(), frame.ids.max())):
            state = self._begun(frame, len(tokens))
            for _ in range(PLACES):
                logits, state = self._next(state, rows)
                logit = logits.gather(1, asked[:, None])
                p = (logit[:, 0] - logits.logsumexp(1)).exp()
                if p.isnan().any():  # as if any logit is
                    raise CorruptFile(f"the model's logits are NaN in the frame {frame.name}: its weights are damaged")
                answer = logits.argmax(1)
                p, rank, token = (each.cpu().numpy() for each in (p, 1 + (logits > logit).sum(1), answer))
                yield Answer(p=p, rank=rank, token=token, bound=np.zeros(len(tokens), bool))
                rows = answer[:, None]

    def _begun(self, frame: Frame, n: int) -> Any:
        """Return the keys and values of the frame's beginning for n tokens; without a cache its ids."""
        torch = import_torch(VERIFY, VERIFY)
        beginning = torch.tensor(frame.beginning, device=self.device)[None]
        if frame not in self._kept:
            has_cache = hasattr(self.logits, "prepare_inputs_for_generation")  # a model of transformers that generates
            given = self.logits(beginning, use_cache=True) if has_cache else None
            self._kept[frame] = getattr(given, "past_key_values", None)
        if not hasattr(self._kept[frame], "batch_repeat_interleave"):
            return beginning.expand(n, -1)
        cache = copy.deepcopy(self._kept[frame])
        cache.batch_repeat_interleave(n)
        return cache

    def _next(self, state: Any, rows: Any) -> tuple[Any, Any]:
        """Return the logits after these ids, float32 [batch, tokens], and the state after them."""
        torch = import_torch(VERIFY, VERIFY)
        if not isinstance(state, torch.Tensor):
            given = self.logits(rows, past_key_values=state, use_cache=True, logits_to_keep=1)
            return given.logits[:, -1].float(), given.past_key_values
        state = torch.cat([state, rows], 1)
        given = self.logits(state)
        return getattr(given, "logits", given)[:, -1].float(), state

    def facts(self) -> dict[str, Any]:
        """Return facts for a manifest beside the source: none."""
        return {}

    def batch(self, length: int, n_tokens: int, free: int) -> int:
        """Return how many texts of a length take a quarter of the free bytes, to be asked for at once."""
        each = length * self.bytes_a_position + 4 * 4 * n_tokens  # logits, and arrays computed from them
        return max(1, min(TOKENS_AT_ONCE, free // 4 // each))


@machine_errors()
def open_model(source: str | Path, *, dtype: str = "auto", device: str = "cpu") -> Model:
    """Open a causal language model by transformers: a folder, a GGUF file, or `org/name[@revision]` of the Hub's cache.

    Raises MissingExtra without transformers; MissingFile where it is not on this machine; InvalidInput where
    transformers cannot make a language model of it.

    Parameters
    ----------
    dtype : of weights and products: auto (the checkpoint's; of a GGUF file float32), float32, bfloat16 or float16
    """
    torch = import_torch(VERIFY, VERIFY)
    transformers = import_extra("transformers", VERIFY, VERIFY)
    one_of(dtype, "dtype", MODEL_DTYPES)
    given = _place(str(source))
    weights: dict[str, Any] = {"dtype": dtype if dtype == "auto" else getattr(torch, dtype)}
    if "gguf_file" in given:
        weights = {"dtype": torch.float32 if dtype == "auto" else weights["dtype"]}
        weights["quantization_config"] = transformers.GgufConfig(dequantize=True)  # else kernels are asked of the Hub
    name = given.pop("name")
    with _opening(transformers, source):
        tokenizer = transformers.AutoTokenizer.from_pretrained(name, **given)
        loaded = transformers.AutoModelForCausalLM.from_pretrained
        model, info = loaded(name, output_loading_info=True, **given, **weights)
    config = model.config.get_text_config()
    if missing := sorted(info["missing_keys"]):  # which would be drawn at random
        raise InvalidInput(f"{source} is no language model: it has no {missing[0]}")
    if masked := [name for name in config.architectures or () if name.endswith("ForMaskedLM")]:
        raise InvalidInput(f"{source} is an encoder ({masked[0]}), which repeats nothing")
    n_heads = getattr(config, "num_attention_heads", 0)  # 0: keeps a state of its own, which is small
    heads = getattr(config, "num_key_value_heads", None) or n_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // max(n_heads, 1)

    def encode(text: str) -> list[int]:
        return tokenizer(text)["input_ids"]

    if device == "cpu":
        _hasten(torch, model)
    return Model(
        logits=model.eval().to(device),
        encode=encode,
        templated=partial(_templated, tokenizer, source),
        decode=lambda token: tokenizer.decode([token]),
        device=device,
        context=getattr(config, "max_position_embeddings", None),
        bytes_a_position=2 * config.num_hidden_layers * heads * width * model.dtype.itemsize,
    )


def open_template(source: str | Path) -> Callable[[str], str]:
    """Return the chat template of a source by transformers; raises as `open_model`, and InvalidInput without one."""
    transformers = import_extra("transformers", VERIFY, VERIFY)
    given = _place(str(source))
    with _opening(transformers, source):
        return partial(_templated, transformers.AutoTokenizer.from_pretrained(given.pop("name"), **given), source)


def _templated(tokenizer: Any, source: str | Path, text: str) -> str:
    """Return a text as a user's message, up to the model's answer, without the mark that encoding adds in front."""
    try:
        said = [{"role": "user", "content": text}]
        whole = tokenizer.apply_chat_template(said, tokenize=False, add_generation_prompt=True)
        begins = tokenizer.bos_token if tokenizer.bos_token_id in tokenizer("")["input_ids"][:1] else None
        return whole.removeprefix(begins or "")
    except Exception as error:  # of a template, which may raise what it likes
        raise InvalidInput(f"the chat template of {source} fails: {in_a_line(error)}") from None


def _hasten(torch: Any, model: Any) -> None:
    """Let oneDNN multiply float32 on a CPU, and attention read keys in place: twice as fast where MKL avoids AVX-512.

    MKL uses AVX2 on AMD's processors (110 GFLOP/s of a core, oneDNN 240 on one with AVX-512). transformers copies keys
    and values for each query head that shares them, by default.
    """
    os.environ.setdefault("TRANSFORMERS_SDPA_FORCE_GQA", "1")
    multiply = torch.ops.mkldnn._linear_pointwise
    for module in model.modules() if torch.backends.mkldnn.is_available() else ():
        if type(module) is torch.nn.Linear and module.weight.dtype == torch.float32:
            module.forward = lambda x, held=module: multiply(x, held.weight, held.bias, "none", [], "")


@contextlib.contextmanager
def _having(token: int) -> Iterator[None]:
    """Raise InvalidInput where the model has no row of this token, the largest that it is asked for."""
    try:
        yield
    except (IndexError, RuntimeError) as error:
        if "out of bounds" not in str(error) and "out of range" not in str(error):
            raise
        raise InvalidInput(f"the model has no token {token}: its vocabulary is another") from None


@contextlib.contextmanager
def _opening(transformers: Any, source: str | Path) -> Iterator[None]:
    """Turn errors of transformers into InvalidInput, and silence its warnings and progress bars."""
    before = transformers.utils.logging.get_verbosity()
    transformers.utils.logging.set_verbosity_error()
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        raise InvalidInput(f"transformers makes no language model of {source}: {in_a_line(error)}") from None
    finally:
        transformers.utils.logging.set_verbosity(before)


def _place(source: str) -> dict[str, Any]:
    """Return the arguments of transformers for a source: name or path, and revision or GGUF file."""
    path = Path(source)
    if path.suffix == ".gguf" and path.is_file():
        return {"name": str(path.parent), "gguf_file": path.name}
    path = path.parent if path.is_file() else path
    if path.is_dir():
        return {"name": str(path), "local_files_only": True}
    name, _, revision = source.partition("@")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise MissingFile(f"no model at {source!r}; give a folder, a GGUF file, or org/name of the Hub's cache")
    return {"name": name, "revision": revision or None, "local_files_only": True}
