"""The tree of errors: drawn in the documents as it is, and reached from the top of the package."""

import re
from pathlib import Path

import pytest

import darkvocab
from darkvocab import errors

DRAWN = (Path(__file__).parents[1] / "docs/errors.md").read_text("utf-8").split("```")[1]
TREE = {kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.DarkvocabError)}


def drawn():
    """Yield each class of the drawing with its parent, its built-in kind and the exit code that holds for it."""
    above = []
    for line in DRAWN.strip().splitlines():
        match = re.match(r"([│├└─ ]*)(\w+)(?: \((\w+)\))?(?: +exit code (\d+))?", line)
        depth = len(match[1]) // 4
        del above[depth:]
        code = int(match[4]) if match[4] else above[-1][1]
        yield match[2], above[-1][0] if above else None, match[3], code
        above.append((match[2], code))


def test_the_drawing_has_every_class_with_its_parent_kind_and_exit_code():
    assert {name for name, *_ in drawn()} == {kind.__name__ for kind in TREE}
    for name, parent, built_in, code in drawn():
        kind = getattr(errors, name)
        assert kind.__bases__[0].__name__ == (parent or "Exception")
        assert kind.exit_code == code
        if built_in:
            assert kind.__bases__[1].__name__ == built_in


@pytest.mark.parametrize("kind", sorted(TREE, key=lambda kind: kind.__name__), ids=lambda kind: kind.__name__)
def test_every_error_can_be_caught_as_one(kind):
    assert issubclass(kind, darkvocab.DarkvocabError)
    assert str(kind("asked, found, next")) == "asked, found, next"
