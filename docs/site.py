"""Pages of the site that docs/ does not hold: README as its first page, changes, log, contributing; the Python API.

Links that lead out of docs/ are made to lead to these pages, or to the text of the file as the site has it.
"""

import importlib
import re
from pathlib import Path
from types import ModuleType

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
NAMES = ("CHANGELOG.md", "LOG.md", "CONTRIBUTING.md", "SECURITY.md")
PAGES = {"README.md": "index.md", **{name: name for name in NAMES}}  # on the site, by their place here
LINK = re.compile(r"(?<=\]\()[^)#\s]+(?=[)#])|(?<=src=\")[^\"]+|(?<=srcset=\")[^\"]+")  # in Markdown, of pictures
WINGS = ("", *"checkpoints measures corpora verification snowballs training studies embedding numerics".split())
SHIM = "https://unpkg.com/iframe-worker/shim"


def on_files(files, config):
    """Add the pages, and what they and others link to beside docs/."""
    for name, place in PAGES.items():
        files.append(File.generated(config, place, content=(ROOT / name).read_text("utf-8")))
    for path in sorted([*ROOT.glob("examples/*.py"), *ROOT.glob("src/darkvocab/*/__init__.py")]):
        files.append(File.generated(config, path.relative_to(ROOT).as_posix(), content=path.read_bytes()))
    for wing in WINGS:
        files.append(File.generated(config, f"api/{wing or 'darkvocab'}.md", content=api_page(wing)))
    return files


def api_page(wing: str) -> str:
    """Return the page of a wing of the package: its docstring, and each exported name with docstring and types."""
    module = importlib.import_module(".".join(["darkvocab", wing]).rstrip("."))
    exported = {name: getattr(module, name) for name in module.__all__}
    functions_first = sorted(exported, key=lambda name: (isinstance(exported[name], type), name))
    entries = [entry(module, name) for name in functions_first if not isinstance(exported[name], ModuleType | str)]
    return "\n\n".join([f"# `{module.__name__}`", (module.__doc__ or "").strip(), *entries])


def entry(module: ModuleType, name: str) -> str:
    """Return the place of an exported thing; of a record, whose columns no source text has, their table."""
    summary, _, columns = (getattr(module, name).__doc__ or "").partition("\n\nColumns\n-------\n")
    if not columns:
        return f"::: {module.__name__}.{name}"
    rows = [re.sub(r"^(\w+) : ([^;]+?)(?:; (.*))?$", cells, line) for line in columns.strip().split("\n")]
    return "\n".join([f"## `{name}`", "", summary, "", "| column | type | |", "|---|---|---|", *rows])


def cells(column: re.Match[str]) -> str:
    """Return a column's row of a table."""
    return f"| `{column[1]}` | `{column[2]}` | {column[3] or ''} |".replace(" | None`", "` or null")


def on_page_markdown(markdown, page, config, files):
    """Turn each link to where the file lies on the site."""
    place = page.file.src_uri
    source = next((name for name, at in PAGES.items() if at == place), f"docs/{place}")

    def turned(match):
        target = (ROOT / source).parent.joinpath(match[0]).resolve()
        if "://" in match[0] or not target.is_relative_to(ROOT):
            return match[0]
        inside = target.relative_to(ROOT).as_posix()
        return "../" * place.count("/") + PAGES.get(inside, inside.removeprefix("docs/"))

    return LINK.sub(turned, markdown)


def on_post_page(output, page, config):
    """Take the library that searches pages on the disk from the site itself, not from a server."""
    return output.replace(SHIM, "../" * page.file.src_uri.count("/") + "vendor/iframe-worker.js")


def on_post_template(output, template_name, config):
    """Do so on the page for what is not found."""
    return output.replace(SHIM, "/vendor/iframe-worker.js")
