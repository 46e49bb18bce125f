"""Small checkpoints as people meet them: packed, scaled, several embeddings in one, adapters, rows that are no numbers.

`CASES[name](rng)` gives tensors, the config, and the name of the file. N tokens of DIM numbers, rows of norm about 0.8.
"""

import json
from pathlib import Path

import ml_dtypes
import numpy as np
from safetensors.numpy import save

N, DIM = 600, 64
BF16 = ml_dtypes.bfloat16
TIED = {"vocab_size": N, "hidden_size": DIM, "tie_word_embeddings": True}
UNTIED = {**TIED, "tie_word_embeddings": False}
WEIGHT = "model.embed_tokens.weight"
HEAD = "lm_head.weight"
BASE = "base_model.model."
MODEL = "model.safetensors"
ADAPTER = "adapter_model.safetensors"


def rows(rng, n=N, dim=DIM, scale=0.1):
    return (rng.standard_normal((n, dim)) * scale).astype(BF16)


def decayed(rng):
    """Forty input rows of 1e-17 in an untied model."""
    low = rows(rng)
    low[100:140] = rows(rng, 40, scale=1e-18)
    return {"backbone.embeddings.weight": low, HEAD: rows(rng, scale=0.03)}, UNTIED, MODEL


def decayed_tied(rng):
    low = rows(rng)
    low[100:140] = rows(rng, 40, scale=1e-19)
    return {WEIGHT: low}, TIED, MODEL


def damaged(rng):
    """Thirty zero rows, six of 1e-6."""
    low = rows(rng)
    low[100:130] = 0
    low[130:136] = rows(rng, 6, scale=1e-7)
    return {"backbone.embeddings.weight": low, HEAD: rows(rng, scale=0.03)}, UNTIED, MODEL


def copied(rng):
    """Rows of special tokens that are copies of words' rows."""
    same = rows(rng)
    same[[N - 4, N - 3, N - 2, 0]] = same[[10, 20, 30, 40]]
    return {WEIGHT: same, HEAD: rows(rng, scale=0.03)}, UNTIED, MODEL


def padded(rng):
    """The output has 96 rows more than the input, all zero."""
    tensors, config, file = copied(rng)
    return {**tensors, HEAD: np.concatenate([tensors[HEAD], np.zeros((96, DIM), BF16)])}, config, file


def compressed(rng):
    words = rng.integers(0, 2**31, (N, DIM // 8), dtype=np.int32)
    words[[3, 7, 9]] = words[3]
    return {f"{WEIGHT}_packed": words, f"{WEIGHT}_scale": np.full((N, 1), 0.01, BF16)}, TIED, MODEL


def compressed_with_zeros(rng):
    tensors, config, file = compressed(rng)
    return {**tensors, f"{WEIGHT}_zero_point": np.zeros((N // 8, 1), np.int32)}, config, file


def four_bits(rng):
    """bitsandbytes' NF4: one column of bytes, and what they mean."""
    tensors = {WEIGHT: rng.integers(0, 256, (N * DIM // 2, 1), dtype=np.uint8)}
    tensors |= {f"{WEIGHT}.absmax": np.ones(N, np.float32), f"{WEIGHT}.quant_map": np.ones(16, np.float32)}
    return tensors, TIED, MODEL


def mlx(rng):
    """Four bits in groups of 64; 3, 7 and 9 are one row, and so are 20 and 21, whose words differ: their scale is 0."""
    words = rng.integers(0, 2**32, (N, DIM // 8), dtype=np.uint32)
    words[[3, 7, 9]] = words[3]
    scales = np.full((N, 1), 0.01, BF16)
    scales[[20, 21]] = 0
    tensors = {"model.embed_tokens.scales": scales, "model.embed_tokens.biases": np.full((N, 1), -0.08, BF16)}
    return {WEIGHT: words, **tensors}, {**TIED, "quantization": {"group_size": 64, "bits": 4}}, MODEL


def fp8(rng):
    """A scale for each row; 3 and 7 have the same words and the same scale, 3 and 9 the same words alone."""
    eight = rng.standard_normal((N, DIM)).astype(ml_dtypes.float8_e4m3fn)
    eight[[7, 9]] = eight[3]
    scale = np.full((N, 1), 0.02, np.float32)
    scale[9] = 0.04
    return {WEIGHT: eight, f"{WEIGHT}_scale": scale}, TIED, MODEL


def int8(rng):
    """bitsandbytes' LLM.int8."""
    eight = rng.integers(-127, 128, (N, DIM), dtype=np.int8)
    return {WEIGHT: eight, "model.embed_tokens.SCB": np.full(N, 0.3, np.float32)}, TIED, MODEL


def modules_to_save(rng):
    return {f"{BASE}{WEIGHT}": rows(rng), f"{BASE}{HEAD}": rows(rng, scale=0.03)}, {}, ADAPTER


def whole_state(rng):
    """The state of a PEFT model: each trained module beside what it was."""
    named = {WEIGHT.removesuffix(".weight"): 0.1, HEAD.removesuffix(".weight"): 0.03}
    kinds = ("original_module.weight", "modules_to_save.default.weight")
    return (
        {f"{BASE}{name}.{kind}": rows(rng, scale=scale) for name, scale in named.items() for kind in kinds},
        {},
        MODEL,
    )


def lora(rng):
    module = f"{BASE}model.embed_tokens"
    tensors = {f"{module}.lora_embedding_A": rows(rng, 8, N), f"{module}.lora_embedding_B": rows(rng, DIM, 8)}
    return tensors, {}, ADAPTER


def lora_elsewhere(rng):
    factors = {"lora_A": rows(rng, 8, DIM), "lora_B": rows(rng, DIM, 8)}
    layers = [f"{BASE}model.layers.{n}.self_attn.q_proj" for n in range(2)]
    return {f"{layer}.{name}.weight": factor for layer in layers for name, factor in factors.items()}, {}, ADAPTER


def delta(rng):
    return {f"{BASE}model.embed_tokens.token_adapter.trainable_tokens_delta": rows(rng, 5)}, {}, ADAPTER


def per_layer(rng):
    """Gemma 3n: rows that each layer adds, for fewer tokens."""
    name = "model.language_model.embed_tokens"
    config = {"text_config": {"vocab_size": N, "vocab_size_per_layer_input": N - 100}}
    return {f"{name}.weight": rows(rng), f"{name}_per_layer.weight": rows(rng, N - 100, 256)}, config, MODEL


def codebooks(rng):
    return {f"model.decoder.embed_tokens.{n}.weight": rows(rng, 257) for n in range(4)}, {"vocab_size": 256}, MODEL


def nonfinite(rng):
    broken = rows(rng)
    broken[7] = np.nan
    broken[9, 3] = np.inf
    broken[[40, 41]] = broken[30]
    return {WEIGHT: broken}, TIED, MODEL


def rwkv(rng):
    tensors = {"emb.weight": rows(rng), "head.weight": rows(rng, scale=0.03), "blocks.0.att.key.weight": rows(rng, DIM)}
    return tensors, {}, MODEL


def moshi(rng):
    return {"text_emb.weight": rows(rng), **{f"emb.{n}.weight": rows(rng, 257) for n in range(3)}}, {}, MODEL


def bark(rng):
    return {"input_embeds_layer.weight": rows(rng), HEAD: rows(rng, 300, scale=0.03)}, {}, MODEL


def untied_without_output(rng):
    return {WEIGHT: rows(rng), "model.norm.weight": np.ones(DIM, BF16)}, UNTIED, MODEL


def tied_but_differs(rng):
    """The config says tied, and 40 rows of the output are others."""
    same = rows(rng)
    other = same.copy()
    other[100:140] = rows(rng, 40)
    return {WEIGHT: same, HEAD: other}, TIED, MODEL


CASES = {
    name: case
    for name, case in list(globals().items())
    if getattr(case, "__module__", None) == __name__ and name != "rows" and callable(case)
}


def files(name, seed=16):
    """The files of a case, by name: bytes."""
    tensors, config, weights = CASES[name](np.random.default_rng(seed))
    held = {weights: save(tensors), "config.json": json.dumps(config).encode()}
    if weights == ADAPTER:
        del held["config.json"]
        held["adapter_config.json"] = json.dumps({"base_model_name_or_path": "org/base"}).encode()
    return held


def saved(folder, name):
    """Write the files of a case into a folder."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for file, content in files(name).items():
        (folder / file).write_bytes(content)
    return folder
