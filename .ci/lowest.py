"""Run the quick tests with the oldest Python and the lowest versions that pyproject.toml allows.

uv resolves each bound of pyproject.toml to its lowest release, and whatever those need to its newest, from wheels on
PyPI, into an environment that is thrown away: 5.5 GB, most of them the CUDA libraries of the lowest torch.
"""

import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

from pins import ENVIRONMENT, ROOT, ends

FROM_PYPI = "--quiet --no-config --default-index https://pypi.org/simple --only-binary :all:".split()


def requirements() -> list[str]:
    """Return the base install and the extras of pyproject.toml, but for Triton, whose bounds ask for a newer torch."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    lines = [line for name, extra in extras.items() if name != "gpu" for line in extra]
    return [*project["dependencies"], *(line for line in lines if not line.startswith("triton"))]


def uv(*arguments: str, **options: Any) -> None:
    """Run uv; CalledProcessError where nothing fits."""
    line = [sys.executable, "-m", "uv", *arguments]
    subprocess.run(line, cwd=ROOT, env=ENVIRONMENT, check=True, text=True, **options)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        python, resolved = f"{folder}/venv/bin/python", f"{folder}/resolved.txt"
        lowest = ["--resolution", "lowest-direct", "--python-version", ends()[0], "--no-emit-package", "triton"]
        uv("pip", "compile", *FROM_PYPI, *lowest, "--output-file", resolved, "-", input="\n".join(requirements()))
        print(Path(resolved).read_text(), flush=True)
        uv("venv", "--quiet", "--no-config", "--python", ends()[0], f"{folder}/venv")
        uv("pip", "install", *FROM_PYPI, "--python", python, "--no-deps", "--requirement", resolved, "--editable", ".")
        # Old releases warn of new ones, which says nothing of us. NumPy 2.0 starts a process when this is imported.
        options = ["-m", "not slow", "-n", "2", "-q", "-o", "filterwarnings=", "-p", "numpy.testing"]
        environment = ENVIRONMENT | {"NUMBA_CACHE_DIR": f"{folder}/kernels"}
        done = subprocess.run([python, "-m", "pytest", *options], cwd=ROOT, env=environment, check=False)
    sys.exit(done.returncode)


if __name__ == "__main__":
    main()
