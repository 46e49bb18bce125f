"""Run commands of an installed darkvocab in an empty folder, as a newcomer on any system would: no torch, no tests."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np


def run(*words: str) -> str:
    """Run the command and return what it prints; CalledProcessError where its exit code is not 0."""
    environment = {**os.environ, "PYTHONUTF8": "1"}
    done = subprocess.run(["darkvocab", *words], capture_output=True, text=True, encoding="utf-8", env=environment)
    print(f"$ darkvocab {' '.join(words)}\n{done.stdout[:2000]}{done.stderr}", flush=True)
    done.check_returncode()
    return done.stdout


def main() -> None:
    os.chdir(tempfile.mkdtemp())
    np.save("rows.npy", np.array([[1, 2], [1, 2], [3, 4]], np.float32))
    run("--version")
    run("doctor")
    scanned = json.loads(run("scan", "rows.npy", "--html", "page.html", "--csv", "tokens.csv", "--json"))
    assert [hole["token_ids"] for hole in scanned["black_holes"]] == [[0, 1]], scanned["black_holes"]
    run("diff", "rows.npy", "rows.npy", "--exit-code")
    run("sweep", "--sigma", "1.5e-9:5e-9:8", "--engine", "processes", "--out", "run", "--quiet")
    run("sweep", "--sigma", "1.5e-9:5e-9:8", "--out", "run", "--resume")
    run("expect", "--run", "run")
    for path in ("page.html", "tokens.csv", "run/report.html", "run/records.csv"):
        assert Path(path).stat().st_size, path
    assert "run" in run("summary", "run", "--json")
    print("the installed command works", file=sys.stderr)


if __name__ == "__main__":
    main()
