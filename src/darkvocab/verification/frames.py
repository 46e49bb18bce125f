"""Frames: texts, as ids with places for a token, that end where a model has to repeat the token."""

import hashlib
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64

from ..errors import CorruptFile, InvalidInput, machine_errors

FRAMES = Path(__file__).with_name("frames.toml")
ERRORS: dict[str, str] = tomllib.loads(Path(__file__).with_name("errors.toml").read_text("utf-8"))
MARK = "{token}"
PLACEHOLDERS = ("~", "^", "§", "¤", "@", "x", "A", "0")  # the first that stays a token of its own is taken


class Text(NamedTuple):
    """Text in a file of frames."""

    name: str
    text: str
    answer: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Frame:
    """Text as token ids, with `places` for the token that is asked for."""

    name: str
    text: str  # with {token} in each place
    ids: Int64[np.ndarray, " length"]
    places: Int64[np.ndarray, " k"]
    placeholder: str  # at these places when the text was encoded

    @property
    def beginning(self) -> Int64[np.ndarray, " n"]:
        """Ids before the first place, the same for all tokens."""
        return self.ids[: self.places[0]]

    def rest(self, tokens: Int64[np.ndarray, " batch"]) -> Int64[np.ndarray, "batch length"]:
        """Return the ids after the beginning, with each token in the places."""
        first = self.places[0]
        rows = np.tile(self.ids[first:], (len(tokens), 1))
        rows[:, self.places - first] = tokens[:, None]
        return rows


@machine_errors()
def read_frames(path: str | Path | None = None) -> tuple[list[Text], str]:
    """Read a file of frames, by default ours; return them and the file's SHA-256.

    Raises MissingFile, and CorruptFile for anything but TOML of tables with `text`, with {token} in it, and `answer`.
    """
    path = FRAMES if path is None else Path(path)
    content = path.read_bytes()
    try:
        texts = [Text(name, of["text"], of["answer"]) for name, of in tomllib.loads(content.decode()).items()]
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptFile(ERRORS["not_frames"].format(path=path, error=error)) from None
    for one in texts:
        if not (isinstance(one.text, str) and isinstance(one.answer, str) and MARK in one.text):
            raise CorruptFile(ERRORS["not_a_frame"].format(path=path, name=one.name, mark=MARK))
    if not texts:
        raise CorruptFile(f"{path}: holds no frames")
    return texts, hashlib.sha256(content).hexdigest()


def encoded(text: Text, encode: Callable[[str], list[int]], templated: Callable[[str], str] | None = None) -> Frame:
    """Encode a frame with a placeholder, whose places are then for the token: also for one that no text reaches.

    Raises InvalidInput where no placeholder survives encoding.

    Parameters
    ----------
    encode : text to the ids that the model is to see
    templated : text to a user's message, up to the answer; None: no chat template
    """
    n_places = text.text.count(MARK)
    whole = (templated(text.text) if templated else text.text) + text.answer
    for placeholder in PLACEHOLDERS:
        if placeholder in text.text + text.answer:
            continue
        shown = text.text.replace(MARK, placeholder)
        ids = np.array(encode((templated(shown) if templated else shown) + text.answer), np.int64)
        for mark in _marks(placeholder, encode):
            places = np.flatnonzero(ids == mark)
            if len(places) == n_places and places[0] > 0:
                return Frame(name=text.name, text=whole, ids=ids, places=places, placeholder=placeholder)
    raise InvalidInput(ERRORS["no_placeholder"].format(name=text.name, placeholders=" ".join(PLACEHOLDERS)))


def _marks(placeholder: str, encode: Callable[[str], list[int]]) -> set[int]:
    """Return the tokens that a placeholder alone becomes, at the start and after the quotes of our frames."""
    befores = {before: encode(before) for before in ("", "«", '"')}
    behind = {before: encode(before + placeholder) for before in befores}
    return {ids[-1] for before, ids in behind.items() if ids and ids[:-1] == befores[before]}
