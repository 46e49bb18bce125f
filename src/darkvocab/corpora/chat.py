"""Chats: the text that a model's template makes of messages, as transformers renders it."""

import json
import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, NoReturn

from ..errors import InvalidInput
from ..sources import Source, chat_template, read_object
from ..sources.tokenizer import in_a_line

SPECIAL = {"bos_token": "bos", "eos_token": "eos", "pad_token": "padding", "unk_token": "unknown"}  # GGUF's names
GENERATION = re.compile(r"(\{%[-+]?\s*)(end)?generation\b")  # marks what the assistant says; jinja2 does not know it


def template_of(source: Source, texts: Mapping[Any, str]) -> Callable[[list[Any], str], str]:
    """Return a function from messages, and their place, to text, by the chat template of a source with these tokens.

    It runs in jinja2's sandbox, and without the date: a text is the same on any day. It raises InvalidInput where there
    is no template, or that fails.
    """
    from jinja2.sandbox import ImmutableSandboxedEnvironment as Sandbox

    template = chat_template(source)
    sandbox = Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
    sandbox.filters["tojson"] = lambda value, **given: json.dumps(value, **{"ensure_ascii": False, **given})
    sandbox.globals["raise_exception"] = _refuse
    known = GENERATION.sub(lambda mark: mark[1] + ("endif" if mark[2] else "if true"), template or "")
    compiled = cache(sandbox.from_string)
    given = {name: _text(source, texts, name) for name in SPECIAL} | {"tools": None, "documents": None}

    def render(messages: list[Any], place: str) -> str:
        if template is None:
            _refuse(f"{place}: messages of a chat, and {source.asked} has no chat template")
        try:
            return compiled(known).render(messages=messages, **given)
        except Exception as error:  # whatever the template's own expressions raise
            _refuse(f"{place}: the chat template of {source.asked} fails ({in_a_line(error)})")

    return render


def _refuse(said: str) -> NoReturn:
    raise InvalidInput(said)


def _text(source: Source, texts: Mapping[Any, str], name: str) -> str:
    """Return the text of a special token by the name that templates give it; "" where the model has none."""
    beside = source.beside.get("tokenizer_config.json")
    held = read_object(beside).get(name) if beside else None
    held = held.get("content") if isinstance(held, dict) else held
    token = source.metadata.get(f"tokenizer.ggml.{SPECIAL[name]}_token_id")
    return held if isinstance(held, str) else texts.get(token, "")
