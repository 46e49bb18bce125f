"""Names of tensors: which are embeddings, which belong to one, and what adapters put into them."""

import re
import tomllib
from pathlib import Path

ENDINGS = tomllib.loads(Path(__file__).with_name("names.toml").read_text("utf-8"))
INPUT_NAMES, OUTPUT_NAMES, OTHER_OUTPUT_NAMES = (tuple(ENDINGS[kind]) for kind in ("input", "output", "other_output"))
# One embedding for each codebook or layer: named with its number.
NUMBERED = re.compile(
    r"(.+\.)?(embed_tokens|emb|embeddings|embedding|input_embeds_layers|word_embeddings|wte)\.[0-9]+(\.weight)?"
)
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
