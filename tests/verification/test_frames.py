"""Frames: a placeholder marks the places of a token, and is exchanged where it does not survive encoding."""

import numpy as np
import pytest

from darkvocab.errors import CorruptFile, InvalidInput, MissingFile
from darkvocab.verification.frames import PLACEHOLDERS, Text, encoded, read_frames

ASKED = Text("asked", "say «{token}» and «{token}»\n", "«")


def _split(text, whole):
    """Characters of a text, but for a piece that stays whole."""
    head, *tails = text.split(whole)
    return [*head, *(part for tail in tails for part in (whole, *tail))]


def characters(text):
    return [ord(character) for character in text]


def test_a_token_stands_in_every_place_and_nowhere_else():
    frame = encoded(ASKED, characters)
    beginning, rest = frame.beginning, frame.rest(np.array([7, 9]))
    assert "".join(map(chr, beginning)) == "say «"
    assert rest.shape == (2, len(frame.ids) - len(beginning))
    for row, token in zip(rest, (7, 9), strict=True):
        assert "".join("#" if one == token else chr(one) for one in row) == "#» and «#»\n«"


def test_a_placeholder_that_merges_with_what_stands_beside_it_is_exchanged():
    def merging(text):  # the first placeholder is one token with the mark after it
        return [1 if part == f"{PLACEHOLDERS[0]}»" else ord(part[0]) for part in _split(text, f"{PLACEHOLDERS[0]}»")]

    frame = encoded(ASKED, merging)
    assert frame.placeholder == PLACEHOLDERS[1]
    assert len(frame.places) == 2


def test_a_placeholder_that_merges_with_what_stands_before_it_is_exchanged():
    def merging(
        text,
    ):  # the first placeholder is one token with the quote before it: the token would take the quote's place
        return [1 if part == f"«{PLACEHOLDERS[0]}" else ord(part[0]) for part in _split(text, f"«{PLACEHOLDERS[0]}")]

    frame = encoded(ASKED, merging)
    assert frame.placeholder == PLACEHOLDERS[1]
    assert "".join(map(chr, frame.beginning)) == "say «"


def test_a_frame_in_which_no_placeholder_survives_is_refused():
    with pytest.raises(InvalidInput, match="the frame asked cannot be asked: none of"):
        encoded(ASKED, lambda text: [len(text)])


def test_a_template_stands_around_the_text_and_before_the_answer():
    frame = encoded(ASKED, characters, lambda text: f"<user>{text}</user><model>")
    shown = "".join(map(chr, frame.ids))
    assert shown.startswith("<user>say")
    assert shown.endswith("</user><model>«")


def test_our_frames_are_three_and_known_by_their_hash(tmp_path):
    texts, sha256 = read_frames()
    assert [text.name for text in texts] == ["device", "meaning", "list"]
    copy = tmp_path / "frames.toml"
    copy.write_text('[one]\ntext = "{token}!"\nanswer = "?"\n')
    (ours,), other = read_frames(copy)
    assert (ours.text, ours.answer) == ("{token}!", "?")
    assert sha256 != other


@pytest.mark.parametrize(
    ("content", "said"),
    {
        "not TOML": (b"[", "not a file of frames"),
        "not UTF-8": (b"\xff", "not a file of frames"),
        "no answer": (b'[a]\ntext = "{token}"\n', "not a file of frames"),
        "no place": (b'[a]\ntext = "x"\nanswer = "y"\n', "the frame a has no {token}"),
        "no text": (b'[a]\ntext = 3\nanswer = "y"\n', "the frame a has no {token}"),
        "no table": (b"a = 3\n", "not a file of frames"),
        "empty": (b"", "holds no frames"),
    }.values(),
)
def test_a_file_that_holds_no_frames_is_refused(content, said, tmp_path):
    path = tmp_path / "frames.toml"
    path.write_bytes(content)
    with pytest.raises(CorruptFile) as raised:
        read_frames(path)
    assert said in str(raised.value)


def test_a_file_of_frames_that_is_not_there_is_missing(tmp_path):
    with pytest.raises(MissingFile):
        read_frames(tmp_path / "none.toml")
