"""README and what else has commands runs as printed, in a fresh copy that `make demo` sets up from nothing."""

import importlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from uv import find_uv_bin

import darkvocab

ROOT = Path(__file__).parents[1]
HOW_TO = ("docs/mend.md", "docs/hub.md", "docs/own-base.md")
DOCUMENTS = ("README.md", "docs/quickstart.md", *HOW_TO, "docs/commands.md", "docs/qwen3-4b.md")
WITH_PYTHON = (*DOCUMENTS, "docs/theory.md")
TRAINED = "darkvocab train --steps 300 --out runs/train"  # the copy stays without torch
# pip, which `make test` has just set up its own environment with, looks at every release of every package: 20 s.
INSTALL = """\
#!/bin/sh
{uv} pip install --quiet --python .venv/bin/python "$@" 2>/dev/null || .venv/bin/pip install --quiet "$@"
"""
NOT_RUN = {"make test", "pip install -q -e '.[train]'", "darkvocab evolve runs/train"}  # `make test` runs this

pytestmark = pytest.mark.xdist_group("documents")


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fresh") / "darkvocab"
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    for kernel in (ROOT / "src").rglob("*.nb?"):  # compiled here, from files of this age: they need not be once more
        target = folder / kernel.relative_to(ROOT)
        target.parent.mkdir(exist_ok=True)
        shutil.copy2(kernel, target)
    encoder = ROOT / "demo/all-MiniLM-L6-v2"  # `make test` has it: the language model is downloaded anew, this is not
    if encoder.is_dir():
        (folder / "demo").mkdir()
        (folder / "demo" / encoder.name).symlink_to(encoder.resolve())
    (folder.parent / "install").write_text(INSTALL.format(uv=find_uv_bin()))
    (folder.parent / "install").chmod(0o755)
    return folder


def run(command: str, folder: Path) -> subprocess.CompletedProcess:
    environment = {
        k: v for k, v in os.environ.items() if k not in ("VIRTUAL_ENV", "PYTHONPATH", "MAKEFLAGS", "MAKELEVEL")
    }
    environment["PIP_NO_COMPILE"] = "1"  # modules are compiled when they are imported, a tenth of all
    environment["MAKEFLAGS"] = rf"PIP={folder.parent}/install\ --constraint\ constraints.txt"
    activate = ". .venv/bin/activate; " if (folder / ".venv").exists() else ""
    return subprocess.run(["sh", "-c", activate + command], cwd=folder, capture_output=True, text=True, env=environment)


def commands(document: str) -> list[tuple[str, str]]:
    """Commands of the console blocks, each with what is printed below it."""
    blocks = re.findall(r"```console\n(.*?)```", (ROOT / document).read_text(), re.DOTALL)
    result = []
    for block in blocks:
        for command, printed in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block, re.MULTILINE):
            result.append((command, printed))
    return result


def matches(printed: str, expected: str) -> bool:
    """Equal, where a line of three dots stands for any lines."""
    pattern = "".join(
        r"(?:.*\n)*" if line == "...\n" else re.escape(line) for line in expected.splitlines(keepends=True)
    )
    return re.fullmatch(pattern, printed) is not None


@pytest.mark.slow
def test_every_command_runs_and_prints_what_is_printed(copy):
    n_compared = 0
    for document in DOCUMENTS:
        result = commands(document)
        assert result, document
        for command, expected in result:
            if command in NOT_RUN:
                continue
            ran = run(command, copy)
            if command == TRAINED:
                assert (ran.returncode, ran.stdout) == (3, "")
                assert "install it with: pip install 'darkvocab[train]'" in ran.stderr
                assert not (copy / "runs/train").exists()
                continue
            assert ran.returncode == 0, (document, command, ran.stdout[-2000:], ran.stderr[-2000:])
            if expected:
                assert matches(ran.stdout, expected), f"{document}: {command}\n{ran.stdout}"
                n_compared += 1
    assert n_compared >= 5
    for name in ("demo/sweep/report.html", "demo/sweep/figures/sweep.pdf", "demo/sweep/records.csv"):
        assert (copy / name).is_file()
    for document in WITH_PYTHON:
        ran = run(f"python -m doctest {document}", copy)
        assert ran.returncode == 0, (document, ran.stdout[-3000:])
    assert (copy / "runs/log/figures/sweep.png").read_bytes() == (ROOT / "docs/images/sweep.png").read_bytes()


def test_the_first_screen_has_the_two_commands():
    first = (ROOT / "README.md").read_text().split("\n## ")[0]
    assert [command for command, _ in commands("README.md")][:2] == ["make demo", "make test"]
    assert "prefers-color-scheme: dark" in first
    assert re.findall(r'(?:src|srcset)="(.+?)"', first) == [
        "docs/images/smollm2-dark.png",
        "docs/images/smollm2-light.png",
    ]


def test_every_command_and_option_is_documented():
    from typer.main import get_command

    from darkvocab.cli import app

    text = "\n".join(path.read_text() for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))])
    for name, command in get_command(app).commands.items():
        assert f"darkvocab {name}" in text, name
        assert command.help
        assert "Example:" in command.help
        for option in command.params:
            assert option.help, (name, option.name)
            longest = max(option.opts, key=len)
            assert not longest.startswith("--") or longest in text, (name, longest)


def test_the_page_of_commands_and_the_manual_are_what_the_help_says(monkeypatch):
    monkeypatch.setenv("COLUMNS", "")  # and back to what it was
    monkeypatch.syspath_prepend(ROOT / "docs")
    commands = importlib.import_module("commands")
    texts = commands.helps()
    assert (ROOT / "docs/commands.md").read_text("utf-8") == commands.page(texts)
    assert (ROOT / "docs/darkvocab.1").read_text("utf-8") == commands.manual(texts)


def test_every_link_between_documents_leads_somewhere():
    for document in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        text = document.read_text()
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text) + re.findall(r'(?:src|srcset)="(.+?)"', text):
            assert (document.parent / target).exists(), (document.name, target)


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path):
    # Every page is in its menu, and every link and anchor leads somewhere.
    pytest.importorskip("material")
    pytest.importorskip("mkdocstrings")
    line = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path / "site"]
    built = subprocess.run(
        line, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    )
    assert built.returncode == 0, built.stderr
    index = (tmp_path / "site" / "index.html").read_text()
    assert {"quickstart.html", "CHANGELOG.html", "findings/decay.html"} <= set(re.findall(r'href="([^"#]+)', index))
    pictures = re.findall(r'(?:src|srcset)="(images/[^"]+)"', index)
    assert pictures
    assert all((tmp_path / "site" / picture).is_file() for picture in pictures)
    assert "docs/images" not in index
    fetched = re.findall(r'(?:src|href)="(https?://[^"]+)"', index)
    assert [address for address in fetched if not address.startswith("https://squidfunk.github.io")] == []
    for page in (tmp_path / "site").rglob("*.html"):
        assert not re.search(r'<(?:script|img|link)\b[^>]+(?:src|href)="https?://', page.read_text()), page
    real_model = (tmp_path / "site/notebooks/real_model.html").read_text()
    assert "ManagementPlaneProtection" in real_model
    assert 'src="data:image/png;base64,' in real_model
    for wing in (darkvocab, darkvocab.checkpoints, darkvocab.training):
        page = (tmp_path / "site" / "api" / f"{wing.__name__.rpartition('.')[2]}.html").read_text()
        headings = set(re.findall(r'<h2 id="[^"]*?(\w+)"', page))
        exported = {name for name in wing.__all__ if not isinstance(getattr(wing, name), ModuleType | str)}
        assert {name.lower() for name in exported} == {heading.lower() for heading in headings}
