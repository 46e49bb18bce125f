"""Tokenizers of Hugging Face: `tokenizer.json`."""

from __future__ import annotations

from pathlib import Path

from ...errors import CorruptFile, MissingFile, machine_errors
from .rules import by_rules, plain
from .tokenizer import Tokenizer


@machine_errors()
def load_tokenizer(path: Path) -> Tokenizer:
    """Open a `tokenizer.json` with the `tokenizers` library; MissingFile or CorruptFile if it cannot."""
    import tokenizers

    if not path.is_file():
        raise MissingFile(f"no tokenizer at {str(path)!r}; give a tokenizer.json, or --tokenizer none")
    try:
        rules = plain(tokenizers.Tokenizer.from_file(str(path)), copy=False)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # the library raises bare Exception, and its panics are not even that
        raise CorruptFile(
            f"{path}: not a tokenizer that can be read ({error}); --tokenizer none goes without"
        ) from None
    return by_rules(rules, file=path)
