"""Adapters: what their tensors are, where they hold no embedding, and what to give instead."""

from __future__ import annotations

import re

from ..sources import Source
from ..text import printable
from .names import INPUT_NAMES, ends

FACTOR = re.compile(r"(?P<module>.+)\.lora_(embedding_)?[AB](\..+)?", re.IGNORECASE)
DELTA = re.compile(r".+\.trainable_tokens_delta(\..+)?")
MERGED = "give the merged model: PeftModel.merge_and_unload() of peft, then save_pretrained"


def adapted(source: Source) -> str | None:
    """Say what an adapter without an embedding holds and what to give instead; None for what is no adapter."""
    factors = {match["module"] for name in source.tensors if (match := FACTOR.fullmatch(name))}
    deltas = [name for name in source.tensors if DELTA.fullmatch(name)]
    base = printable(source.base) if source.base else "the base model"
    if deltas:
        changed = source.tensors[deltas[0]]
        rows = f"{changed.shape[0]:,} rows" if changed.shape else "rows"
        return (
            f"{source.asked} is an adapter: {printable(deltas[0])} holds changes of {rows} of an embedding that is not "
            f"here; {MERGED} (or give {base}, which has the rows without the changes)"
        )
    if of_embedding := sorted(module for module in factors if _is_embedding(module)):
        return (
            f"{source.asked} is a LoRA adapter: lora_embedding_A and lora_embedding_B of {printable(of_embedding[0])} "
            f"are factors of a change to an embedding that is not here; {MERGED} (or give {base}, which has the rows "
            "without the change)"
        )
    if factors:
        return (
            f"{source.asked} is a LoRA adapter of {len(factors):,} modules, none of them the embedding, which stays "
            f"that of {base}: give that"
        )
    return None


def _is_embedding(module: str) -> bool:
    return any(ends(name, ending) for ending in INPUT_NAMES for name in (module, f"{module}.weight"))
