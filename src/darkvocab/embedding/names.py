"""Names of tensors: which are embeddings, which belong to one, and what adapters put into them."""

from __future__ import annotations

import re

# Endings of tensor names, the most telling first: T5 and BART (whose encoder and decoder may hold copies), Llama, Qwen,
# Gemma and DeepSeek, GPT-2, GPT-NeoX, BERT, GGUF, Mamba, RWKV, Moshi, Bark, and what else transformers has; then bare
# ones, which mean this only where nothing else has a better name.
INPUT_NAMES = (
    *("shared.weight", "embed_tokens.weight", "wte.weight", "embed_in.weight", "word_embeddings.weight"),
    *("tok_embeddings.weight", "token_embd.weight", "backbone.embedding.weight", "backbone.embeddings.weight"),
    *("token_embedding.weight", "transformer.embedding.word_embeddings.weight", "text_emb.weight"),
    *("input_embeds_layer.weight", "embed_text_tokens.weight", "text_embed_tokens.weight", "tokens_embed.weight"),
    *("text_token_embedding.weight", "input_embedding.weight", "word_embedding.weight", "in_out_embed.weight"),
    *("codec_embedding.weight", "transformer.w.weight", "embedding_layer.weight", "embedding.weight"),
    *("embeddings.weight", "emb.weight", "embed.weight"),
)
OUTPUT_NAMES = (
    *("lm_head.weight", "embed_out.weight", "output.weight", "cls.predictions.decoder.weight"),
    *("lm_head.decoder.weight", "transformer.output_layer.weight", "transformer.ff_out.weight"),
)
# Names of an output matrix in some models, and of anything in others: taken where the rows are as wide and as many.
OTHER_OUTPUT_NAMES = (
    *("generator_lm_head.weight", "lm_head.linear.weight", "lm_head.out_proj.weight", "lm_loss.weight"),
    *("output_layer.weight", "output_projection.weight", "proj_out.weight", "pred_layer.proj.weight"),
    *("vocab_projector.weight", "mlm_score.decoder.weight", "predictions.decoder.weight", "codec_head.weight"),
    *("logits_dense.weight", "text_linear.weight", "text_lm_head.weight", "unembed.weight", "decoder.weight"),
    "head.weight",
)
# One embedding for each codebook or layer: named with its number.
NUMBERED = re.compile(
    r"(.+\.)?(embed_tokens|emb|embeddings|embedding|input_embeds_layers|word_embeddings|wte)\.[0-9]+(\.weight)?"
)
PER_LAYER = ("embed_tokens_per_layer.weight", "per_layer_token_embd.weight")  # rows that each layer adds: Gemma 3n
# Names of what belongs to an embedding and is none: scales, zero points, factors and changes of adapters.
NO_EMBEDDING = re.compile(
    r"(.*[._])?((scales?(_inv|_2)?|scale_weight|zero_points?|q?zeros|biases|scb|g_idx|absmax|quant_map|_data"
    r"|trainable_tokens_(delta|index)|weight_shape)(\.[^.]+)?|lora_[^.]+(\..+)?)",
    re.IGNORECASE,
)
# What PEFT puts into a name: the weight is the module's own, or in `modules_to_save` the one that was trained.
WRAPPED = re.compile(r"\.(modules_to_save(\.[^.]+)?|original_module|(token_adapter\.)?base_layer)(?=\.weight)")
# Other names of a weight that is packed.
PACKED = re.compile(r"(?<![^.])(weight_packed|qweight|W_q)$")


def ends(name: str, ending: str) -> bool:
    """Say whether a tensor has this name, or ends with it after a point; what adapters and packing add is no part."""
    if ending.removesuffix("weight") not in name:  # soon said: there may be a hundred thousand names
        return name == ending
    plain = PACKED.sub("weight", WRAPPED.sub("", name))
    return plain == ending or plain.endswith("." + ending)
