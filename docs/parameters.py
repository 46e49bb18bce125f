"""Parameters in docstrings as this project writes them, for the site: `name : text`, with types in the signature."""

import re

import griffe

LINE = re.compile(r"^(\w[\w, ]*) : (.*)$", re.MULTILINE)
SECTION = re.compile(r"(?<=\nParameters\n----------\n)(?:.+\n?)+")


class Parameters(griffe.Extension):
    """Put the text under the name, where NumPy's style has it: behind the colon it would be read as a type."""

    def on_object(self, *, obj, **_):
        """Rewrite the section in an object's docstring."""
        if obj.docstring:
            obj.docstring.value = SECTION.sub(lambda section: LINE.sub(r"\1\n    \2", section[0]), obj.docstring.value)
