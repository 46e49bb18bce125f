"""Run the notebooks from top to bottom, in one kernel, and compare what they print with what they hold.

python notebooks/run.py [--write] [NOTEBOOK ...]

Without `--write` it ends with 1 where a cell shows something else; cells with the tag `varies`, whose numbers depend on
the machine, need only show the same kinds of things. With it the notebooks are stored with what they showed.
"""

import argparse
import base64
import io
import re
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode
from PIL import Image

FOLDER = Path(__file__).parent
COLOURS = 64  # of a stored figure: a third of the size, and no difference to see
EMBEDDED = re.compile(r"(?<=data:image/png;base64,)[^\"]+")
FORGET = "%reset -f"  # between notebooks; modules stay loaded


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def run(notebooks: list[NotebookNode]) -> None:
    """Run the notebooks one after the other, beside a `demo` folder as they lie here, and set their cells' outputs."""
    cells = [cell for notebook in notebooks for cell in [nbformat.v4.new_code_cell(FORGET), *code_cells(notebook)]]
    with TemporaryDirectory() as folder:
        place = Path(folder, FOLDER.name)
        place.mkdir()
        place.with_name("demo").symlink_to(FOLDER.parent / "demo")
        everything = nbformat.v4.new_notebook(cells=cells)
        NotebookClient(everything, timeout=600, record_timing=False, resources={"metadata": {"path": place}}).execute()
    for notebook in notebooks:
        for count, cell in enumerate(code_cells(notebook), 1):
            cell.execution_count = count
            cell.outputs = [tidied(output, count) for output in cell.outputs if output.get("name") != "stderr"]


def tidied(output: NotebookNode, count: int) -> NotebookNode:
    """Return an output with small figures, and no text beside HTML or a figure that says the same."""
    if output.output_type == "execute_result":
        output.execution_count = count
    data = output.get("data", {})
    if len(data) > 1:
        data.pop("text/plain", None)
    if "image/png" in data:
        data["image/png"] = smaller(data["image/png"])
    if "text/html" in data:
        data["text/html"] = EMBEDDED.sub(lambda match: smaller(match[0]), data["text/html"])
    return output


def smaller(png: str) -> str:
    """Return a figure, in base64, with few colours."""
    buffer = io.BytesIO()
    picture = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
    picture.quantize(COLOURS, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def shown(cell: NotebookNode) -> list[str]:
    """Return what a cell shows, as text: the kinds of its outputs, and what they say where that never varies."""
    kinds = [" ".join([output.output_type, *sorted(output.get("data", {}))]) for output in cell.outputs]
    if "varies" in cell.metadata.get("tags", ()):
        return kinds
    texts = [
        output.get("text") or output.data.get("text/html", output.data.get("text/plain")) for output in cell.outputs
    ]
    return [*kinds, *(EMBEDDED.sub("", text or "") for text in texts)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("notebooks", nargs="*", type=Path, help="by default all")
    parser.add_argument("--write", action="store_true", help="store what they show")
    chosen = parser.parse_args()
    paths = chosen.notebooks or sorted(FOLDER.glob("*.ipynb"))
    notebooks = [nbformat.read(path, as_version=4) for path in paths]
    before = [[shown(cell) for cell in code_cells(notebook)] for notebook in notebooks]
    run(notebooks)
    n_differ = 0
    for path, notebook, held in zip(paths, notebooks, before, strict=True):
        if chosen.write:
            nbformat.write(notebook, path)
            continue
        for cell, old in zip(code_cells(notebook), held, strict=True):
            if shown(cell) != old:
                n_differ += 1
                print(
                    f"{path.name}, cell {cell.execution_count}:\n{cell.source}",
                    "held:",
                    *old,
                    "now:",
                    *shown(cell),
                    sep="\n",
                )
    return min(n_differ, 1)


if __name__ == "__main__":
    sys.exit(main())
