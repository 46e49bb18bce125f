"""Write docs/commands.md: the help of every command, as it is printed. python docs/commands.py"""

import os
import subprocess
from pathlib import Path

from typer.main import get_command

from darkvocab.cli import app

HEAD = """# Commands

Every command takes `--json` for data on stdout; progress and notes go to stderr. \
Exit codes: [files.md](files.md#exit-codes).
"""


def main() -> None:
    text = HEAD
    for name in ("", *get_command(app).commands):
        words = ["darkvocab", *name.split(), "--help"]
        made = subprocess.run(words, capture_output=True, text=True, check=True, env={**os.environ, "COLUMNS": "80"})
        text += f"\n## {' '.join(words[:-1])}\n\n```console\n$ {' '.join(words)}\n{made.stdout}```\n"
    Path(__file__).with_name("commands.md").write_text(text)


if __name__ == "__main__":
    main()
