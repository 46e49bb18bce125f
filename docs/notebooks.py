"""Notebooks as pages of the site: a hook of MkDocs that turns cells and their outputs into Markdown."""

import re
from html import escape
from pathlib import Path

import nbformat
from mkdocs.structure.files import File

FOLDER = Path(__file__).parents[1] / "notebooks"
PLACE = "notebooks"  # on the site


def on_files(files, config):
    """Add a page for each notebook, and the notebook itself beside it."""
    for path in sorted(FOLDER.glob("*.ipynb")):
        files.append(File.generated(config, f"{PLACE}/{path.stem}.md", content=""))
        files.append(File.generated(config, f"{PLACE}/{path.name}", content=path.read_bytes()))
    return files


def on_page_markdown(markdown, page, config, files):
    """Return the cells of a page's notebook; on other pages, have links to notebooks lead to their pages."""
    if not page.file.src_uri.startswith(f"{PLACE}/"):
        return re.sub(rf"(\]\([./]*{PLACE}/[\w.]+)\.ipynb\)", r"\1.md)", markdown)
    page.meta["hide"] = ["toc"]  # room for tables and code
    path = FOLDER / Path(page.file.src_uri).with_suffix(".ipynb").name
    title, *cells = [shown(cell) for cell in nbformat.read(path, as_version=4).cells]
    return "\n\n".join([title, f"[This page as a notebook]({path.name}), to run it yourself.", *cells])


def shown(cell):
    """Return a cell as Markdown. Links lead to where things lie on the site."""
    if cell.cell_type == "markdown":
        return re.sub(r"\]\(([\w.]+)\.ipynb\)", r"](\1.md)", cell.source.replace("](../docs/", "](../"))
    return "\n\n".join([f"```python\n{cell.source}\n```", *map(output, cell.outputs)])


def output(of):
    """Return an output as HTML: a table or a figure, else text."""
    data = of.get("data", {})
    html = data.get("text/html")
    if "image/png" in data:
        html = f'<img alt="Figure" width="700" src="data:image/png;base64,{data["image/png"].strip()}">'
    if html is None:
        html = f"<pre>{escape(of.get('text') or data['text/plain'])}</pre>"
    html = html.replace("\0", "\\0")  # a token's text, which no page may hold
    return f'<div class="notebook-output">\n{html}\n</div>'
