"""Check that all dependencies resolve from PyPI alone; `--write` pins anew.

On each platform, for the oldest and the newest Python of the classifiers, with the pins and without, uv solves all
extras together from wheels only, and installs nothing. What resolves together resolves in part: an extra only adds
requirements, so the base install and each extra resolve with it. All that is solved with the pins must be pinned.
Settings of this machine's pip and uv (other indexes, local wheels) do not count.
"""

import argparse
import os
import re
import subprocess
import sys
import tomllib
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

ROOT = Path(__file__).parent.parent
PINS = ROOT / "constraints.txt"
PLATFORMS = {
    "Linux x86-64": "x86_64-manylinux_2_28",
    "Linux aarch64": "aarch64-manylinux_2_28",
    "macOS 14 arm64": "aarch64-apple-darwin",
}
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "UV_"))}
ENVIRONMENT |= {"MACOSX_DEPLOYMENT_TARGET": "14.0", "NO_COLOR": "1"}
UV = """
    pip compile --quiet --no-config --no-python-downloads --default-index https://pypi.org/simple --only-binary :all:
    --all-extras --no-header --no-annotate
""".split()
HEADER = """\
# What CI installs, for every platform and extra; written by `.venv/bin/python .ci/pins.py --write`, checked by
# `make pins`. Loosen pyproject.toml, not this.
"""


class Unreachable(Exception):
    """PyPI does not answer."""


def solve(*options: str) -> str:
    """Return the project's requirements as uv solves them, `name==version` a line; ValueError where nothing fits."""
    line = [sys.executable, "-m", "uv", *UV, *options, "pyproject.toml"]
    done = subprocess.run(line, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    if "Failed to fetch" in done.stderr:
        raise Unreachable(done.stderr)
    if done.returncode:
        raise ValueError(done.stderr)
    return done.stdout


def versions(requirements: str) -> set[str]:
    """Return `name==version` of each line, without its marker."""
    return set(re.findall(r"^[\w.-]+==[\w.+!]+", requirements, re.MULTILINE))


def fault(platform: str, python: str, with_pins: bool) -> str:
    """Solve one install and return what is wrong with it, or nothing."""
    options = ["--python-platform", PLATFORMS[platform], "--python-version", python]
    options += ["--constraint", str(PINS)] if with_pins else []
    try:
        solved = versions(solve(*options))
    except ValueError as error:
        return str(error)
    unpinned = solved - versions(PINS.read_text()) if with_pins else ()
    return f"not in {PINS.name}: {', '.join(sorted(unpinned))}\n" if unpinned else ""


def ends() -> tuple[str, str]:
    """Return the oldest and the newest Python that the classifiers name."""
    classifiers = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["classifiers"]
    pythons = re.findall(r":: (3\.\d+)$", "\n".join(classifiers), re.MULTILINE)
    return pythons[0], pythons[-1]


def check() -> int:
    """Solve every install, print what fails, and return how many do."""
    installs = list(product(PLATFORMS, ends(), (True, False)))
    with ThreadPoolExecutor(4) as pool:
        faults = list(pool.map(fault, *zip(*installs, strict=True)))
    for (platform, python, with_pins), what in zip(installs, faults, strict=True):
        if what:
            pins = "with the pins" if with_pins else "without pins"
            print(f"{platform}, Python {python}, {pins}:\n{what}", file=sys.stderr)
    n_faults = sum(map(bool, faults))
    print(f"pins: {len(installs) - n_faults} of {len(installs)} installs resolve from PyPI alone")
    return n_faults


def write(upgrade: bool) -> None:
    """Solve all extras for all platforms at once; without `upgrade`, a pin stays where it can."""
    options = ["--upgrade"] if upgrade else []
    solve("--universal", "--python-version", ends()[0], "--output-file", str(PINS), *options)
    PINS.write_text(HEADER + PINS.read_text())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write constraints.txt, keeping its pins where they fit")
    parser.add_argument("--upgrade", action="store_true", help="with --write: take the newest of everything")
    chosen = parser.parse_args()
    try:
        if chosen.write:
            write(chosen.upgrade)
        faults = check()
    except ValueError as error:
        sys.exit(str(error))
    except Unreachable as error:
        sys.exit(f"PyPI cannot be reached, so nothing is known of the pins; try again with a network.\n{error}")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
