"""JSON files that others wrote: what they hold, or a CorruptFile."""

import json
from typing import Any

from ..errors import CorruptFile
from .tensors import File


def read_json(path: File) -> Any:
    """Return what a JSON file holds; raises CorruptFile where that is not JSON."""
    try:
        return json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise CorruptFile(f"{path}: not JSON ({error})") from None


def read_object(path: File) -> dict[str, Any]:
    """Return the object that a JSON file holds; raises CorruptFile where it holds none."""
    content = read_json(path)
    if not isinstance(content, dict):
        raise CorruptFile(f"{path}: not a JSON object")
    return content
