"""Chat templates: the text by which a model's prompts are made, as its files hold it."""

from typing import Any

from ..errors import CorruptFile, machine_errors
from .tensors import Source, read_object

JINJA = "chat_template.jinja"
OBJECTS = ("chat_template.json", "tokenizer_config.json")
FILES = (JINJA, *OBJECTS)


@machine_errors()
def chat_template(source: Source) -> str | None:
    """Return the chat template of a checkpoint, as it is written; None where it has none.

    A GGUF file's own comes first, then that of `FILES` beside the weights, in this order, as transformers has it. Of
    several the one named `default`, else the first. Remote files are read now. Raises CorruptFile.
    """
    held = source.metadata.get("tokenizer.chat_template")
    if isinstance(held, str):
        return held
    if file := source.beside.get(JINJA):
        try:
            return file.read_text("utf-8")
        except UnicodeDecodeError as error:
            raise CorruptFile(f"{file}: not UTF-8 ({error})") from None
    for name in OBJECTS:
        if file := source.beside.get(name):
            template = _chosen(read_object(file).get("chat_template"))
            if template is not None:
                return template
    return None


def _chosen(held: Any) -> str | None:
    """Return a template, or one of a list of templates with names."""
    if not isinstance(held, list):
        return held if isinstance(held, str) else None
    named = [one for one in held if isinstance(one, dict) and isinstance(one.get("template"), str)]
    named.sort(key=lambda one: one.get("name") != "default")
    return named[0]["template"] if named else None
