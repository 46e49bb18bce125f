"""Write docs/commands.md and the manual page docs/darkvocab.1: the help of every command, as it is printed."""

import os
import re
from contextlib import redirect_stdout, suppress
from io import StringIO
from pathlib import Path

from typer.main import get_command

import darkvocab
from darkvocab.cli import app

HEAD = """# Commands

Every command takes `--json` for data on stdout; progress and notes go to stderr. \
Exit codes: [files.md](files.md#exit-codes).
"""
MANUAL = rf""".\" Written by docs/commands.py
.TH DARKVOCAB 1 "" "darkvocab {darkvocab.__version__}"
.SH NAME
darkvocab \- find the tokens that a language model never learned
"""


def helps() -> dict[str, str]:
    """Return the help of the application ("darkvocab") and of every command, 80 columns wide."""
    os.environ["COLUMNS"] = "80"
    application = get_command(app)
    texts = {}
    for name in ("", *application.commands):
        with redirect_stdout(StringIO()) as printed, suppress(SystemExit):
            application.main([*name.split(), "--help"], prog_name="darkvocab")
        texts[f"darkvocab {name}".strip()] = printed.getvalue()
    return texts


def page(texts: dict[str, str]) -> str:
    """Return commands.md."""
    return HEAD + "".join(f"\n## {name}\n\n```console\n$ {name} --help\n{text}```\n" for name, text in texts.items())


def manual(texts: dict[str, str]) -> str:
    """Return the manual page, in man's macros: a section for each command, its lines as they are."""
    sections = []
    for name, text in texts.items():
        lines = text.replace("\\", r"\e").replace("-", r"\-").rstrip()
        lines = re.sub(r"^(?=[.'])", r"\\&", lines, flags=re.MULTILINE)
        sections.append(f".SH {name.upper()}\n.nf\n{lines}\n.fi\n")
    return MANUAL + "".join(sections)


def main() -> None:
    texts = helps()
    for name, text in {"commands.md": page(texts), "darkvocab.1": manual(texts)}.items():
        Path(__file__).with_name(name).write_text(text, "utf-8")


if __name__ == "__main__":
    main()
