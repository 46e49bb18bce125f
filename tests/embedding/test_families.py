"""Families of models: both embeddings, as `transformers` saves them in safetensors and as `torch.save` does."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from darkvocab import EmbeddingMatrix, scan
from darkvocab.embedding.find import INPUT_NAMES, OTHER_OUTPUT_NAMES, OUTPUT_NAMES

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.slow  # the models of transformers take seconds to import

V, DIM = 70, 16
SMALL = {
    "vocab_size": V, "hidden_size": DIM, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_key_value_heads": 2, "max_position_embeddings": 90,
}  # fmt: skip
HEADS = {**SMALL, "head_dim": 8}
BERT = {name: value for name, value in SMALL.items() if name != "num_key_value_heads"}
ENDS = {"bos_token_id": 1, "eos_token_id": 2}
PICTURES = {
    "hidden_size": DIM, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 8,
    "patch_size": 4,
}  # fmt: skip
EXPERTS = {
    "moe_intermediate_size": 8, "n_routed_experts": 4, "n_group": 2, "topk_group": 1, "num_experts_per_tok": 2,
    "kv_lora_rank": 8, "q_lora_rank": 8, "qk_rope_head_dim": 4, "v_head_dim": 8, "qk_nope_head_dim": 4,
    "first_k_dense_replace": 0,
}  # fmt: skip
TURNS = {"rope_parameters": {"rope_type": "default", "mrope_section": [2, 1, 1]}}

# Model, config, settings; whether it can be had untied.
FAMILIES = {
    "Llama": ("LlamaForCausalLM", "LlamaConfig", SMALL, True),
    "Qwen2": ("Qwen2ForCausalLM", "Qwen2Config", SMALL, True),
    "Qwen3": ("Qwen3ForCausalLM", "Qwen3Config", HEADS, True),
    "GPT-2": (
        "GPT2LMHeadModel", "GPT2Config",
        {"vocab_size": V, "n_embd": DIM, "n_layer": 1, "n_head": 2, "n_positions": 90, **ENDS}, True,
    ),
    "GPT-NeoX": ("GPTNeoXForCausalLM", "GPTNeoXConfig", BERT, True),
    "Gemma": ("GemmaForCausalLM", "GemmaConfig", HEADS, True),
    "Gemma 3": ("Gemma3ForCausalLM", "Gemma3TextConfig", HEADS, True),
    "BERT": ("BertForMaskedLM", "BertConfig", BERT, True),
    "RoBERTa": ("RobertaForMaskedLM", "RobertaConfig", BERT, True),
    "T5": (
        "T5ForConditionalGeneration", "T5Config",
        {"vocab_size": V, "d_model": DIM, "d_kv": 8, "d_ff": 24, "num_layers": 1, "num_heads": 2}, False,
    ),
    "Mamba": (
        "MambaForCausalLM", "MambaConfig",
        {"vocab_size": V, "hidden_size": DIM, "state_size": 4, "num_hidden_layers": 1}, True,
    ),
    "DeepSeek": ("DeepseekV3ForCausalLM", "DeepseekV3Config", {**SMALL, **EXPERTS}, True),
    "Llava": (
        "LlavaForConditionalGeneration", "LlavaConfig",
        {
            "vision_config": {"model_type": "clip_vision_model", **PICTURES}, "image_token_index": 3,
            "text_config": {"model_type": "llama", **SMALL},
        }, True,
    ),
    "Gemma 3 with pictures": (
        "Gemma3ForConditionalGeneration", "Gemma3Config",
        {"vision_config": PICTURES, "text_config": HEADS, "mm_tokens_per_image": 4, "image_token_index": 3}, True,
    ),
    "Qwen2-VL": (
        "Qwen2VLForConditionalGeneration", "Qwen2VLConfig",
        {
            "vision_config": {"depth": 1, "embed_dim": DIM, "hidden_size": DIM, "num_heads": 2, "patch_size": 4},
            "text_config": {**SMALL, **TURNS, **ENDS},
        }, True,
    ),
    "ModernBERT": ("ModernBertForMaskedLM", "ModernBertConfig", {**BERT, "pad_token_id": 0, **ENDS}, True),
    "Whisper": (
        "WhisperForConditionalGeneration", "WhisperConfig",
        {
            "vocab_size": V, "d_model": DIM, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
            "decoder_attention_heads": 2, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "pad_token_id": 0,
            "decoder_start_token_id": 1, **ENDS,
        }, True,
    ),
    "DistilBERT": (
        "DistilBertForMaskedLM", "DistilBertConfig", {"vocab_size": V, "dim": DIM, "n_layers": 1, "n_heads": 2}, True,
    ),
    "XLNet": (
        "XLNetLMHeadModel", "XLNetConfig",
        {"vocab_size": V, "d_model": DIM, "n_layer": 1, "n_head": 2, "d_inner": 24}, True,
    ),
}  # fmt: skip
CASES = [
    (name, tied) for name, (_, _, _, either) in FAMILIES.items() for tied in ((True, False) if either else (True,))
]


# Attributes of transformers' models that are embeddings of something else, by the size of some vocabulary, or heads.
NO_TOKENS = {
    *("token_type_embeddings", "visual_token_type_embeddings", "task_type_embeddings", "entity_embeddings"),
    *("embed_tokens_per_layer", "value_embeddings", "num_speakers_embed", "pronunciation_embed", "shape_embed"),
    *("unit_embedding", "embed_char"),  # of the speech that is made, and of characters
}
NO_HEADS = {"out", "ctc_head"}  # over the frames of a sound


def attributes(pattern):
    """Attributes that transformers' models set so, and a model of each."""
    result = {}
    for path in sorted((Path(transformers.__file__).parent / "models").glob("*/modeling_*.py")):
        result |= dict.fromkeys(re.findall(pattern, path.read_text("utf-8")), path.parent.name)
    return result


def test_every_embedding_and_head_of_transformers_has_a_known_name():
    config = r"(?:self\.)?config\.(?:text_config\.)?"
    embeddings = attributes(rf"self\.(\w+) = [\w.]*Embedding\w*\(\s*(?:num_embeddings=)?{config}\w*vocab_size")
    heads = attributes(rf"self\.(\w+) = nn\.Linear\(\s*[^,]+,\s*(?:out_features=)?{config}vocab_size")
    assert min(len(embeddings), len(heads)) > 10
    for named, known, left in (
        (embeddings, INPUT_NAMES, NO_TOKENS),
        (heads, OUTPUT_NAMES + OTHER_OUTPUT_NAMES, NO_HEADS),
    ):
        unknown = {
            name: model
            for name, model in named.items()
            if name not in left and not any(f".{ending}".endswith(f".{name}.weight") for ending in known)
        }
        assert not unknown


def made(name, tied):
    model, config, settings, _ = FAMILIES[name]
    settings = {**settings, "tie_word_embeddings": tied}
    if "text_config" in settings:
        settings["text_config"] = {**settings["text_config"], "tie_word_embeddings": tied}
    torch.manual_seed(0)
    return getattr(transformers, model)(getattr(transformers, config)(**settings))


def saved_in_shards(state, folder):
    """Tensors in two files of torch's format, and their index."""
    names = sorted(state)
    shards = {"pytorch_model-00001-of-00002.bin": names[::2], "pytorch_model-00002-of-00002.bin": names[1::2]}
    for shard, held in shards.items():
        torch.save({name: state[name] for name in held}, folder / shard)
    places = {name: shard for shard, held in shards.items() for name in held}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": places}))


@pytest.mark.parametrize(("name", "tied"), CASES)
def test_both_embeddings_of_a_family_are_found_by_name(tmp_path, name, tied):
    model = made(name, tied)
    rows, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    with torch.no_grad():
        rows[20:25] = rows[11]
    assert (rows.data_ptr() == head.data_ptr()) is tied
    model.save_pretrained(tmp_path / "safetensors")
    for folder in ("bin", "shards"):
        (tmp_path / folder).mkdir()
        model.config.save_pretrained(tmp_path / folder)
    torch.save(model.state_dict(), tmp_path / "bin" / "pytorch_model.bin")
    saved_in_shards(model.state_dict(), tmp_path / "shards")
    for folder in ("safetensors", "bin", "shards"):
        result = EmbeddingMatrix.open(tmp_path / folder)
        assert np.array_equal(result.rows(slice(None)), rows.detach().numpy())
        assert (result.chosen, result.tied) == ("by name", tied)
        assert np.array_equal(result.unembedding().rows(slice(None)), head.detach().numpy())
        assert scan(tmp_path / folder, checksum=False).to_json()["populations"] == [6]


@pytest.mark.parametrize(
    ("scale", "shape"),
    [
        ("lm_head.weight_scale_inv", (1, 1)),
        ("model.embed_tokens.weight_scale_inv", (1, 1)),
        ("model.embed_tokens.scales", (V,)),
    ],
)
def test_rows_of_8_bits_are_scaled_and_their_scales_named(tmp_path, scale, shape):
    rows = torch.randn(V, DIM).to(torch.float8_e4m3fn)
    torch.save({"model.embed_tokens.weight": rows, scale: torch.full(shape, 0.5)}, tmp_path / "m.bin")
    scanned = scan(tmp_path / "m.bin")
    report = scanned.to_json()
    of_the_rows = scale.startswith("model")
    assert report["chosen"] == "by name" + (f"; scaled by {scale}" if of_the_rows else "")
    assert (report["stored_grid"], report["n_tokens"]) == ("float8_e4m3fn" + " x scale" * of_the_rows, V)
    norms = rows.double().norm(dim=1) * (0.5 if of_the_rows else 1)
    assert np.allclose(scanned.tokens["norm"].to_numpy(), norms.numpy())
