"""Command on the installation: doctor."""

import platform
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import typer

import darkvocab

from ..errors import DarkvocabError
from . import shell
from .options import TEXTS
from .shell import app, machine, put


@app.command()
def doctor(as_json: bool) -> None:
    from ..gpu.device import torch_device
    from ..reports.document import printer

    report: dict[str, Any] = {"darkvocab": darkvocab.__version__, "python": platform.python_version()}
    report |= {"machine": machine(), "device": "cpu", "broken": None, "caches": {}}
    for device in ("mps", "cuda"):
        with suppress(DarkvocabError, OSError):  # OSError: a library of torch's is broken
            report["device"] = str(torch_device(device))
    try:
        report["caches"] = _caches()
    except (ImportError, OSError) as error:
        report["broken"] = str(error)
    packages = {name: list(_packages(name)) for name in ("", *TEXTS["extras"])}
    report["packages"] = packages.pop("")
    report["extras"] = {name: {"for": TEXTS["extras"][name], "packages": of} for name, of in packages.items()}
    put(as_json, printer("doctor"), report)
    if report["broken"] or not all(package["fits"] for package in report["packages"]):
        raise typer.Exit(shell.FINDINGS)


def _packages(extra: str) -> Iterator[dict[str, Any]]:
    """Yield the packages that an extra ("": the base install) asks for here: version or None, and whether it fits."""
    from importlib import metadata

    from packaging.requirements import Requirement

    for needed in map(Requirement, metadata.requires("darkvocab") or []):
        of_base, of_extra = (needed.marker is None or needed.marker.evaluate({"extra": name}) for name in ("", extra))
        if of_extra and not (extra and of_base):
            version = next((one.version for one in metadata.distributions(name=needed.name)), None)
            fits = version is not None and needed.specifier.contains(version, prereleases=True)
            yield {"name": needed.name, "needs": str(needed.specifier), "version": version, "fits": fits}


def _caches() -> dict[str, dict[str, Any]]:
    """Return where kernels and what was read of the Hub are kept (path, None: nowhere), and their bytes."""
    from huggingface_hub import constants

    from ..numerics._backends import grouping

    hub = {"embeddings": Path(constants.HF_ASSETS_CACHE, "darkvocab"), "models": constants.HF_HUB_CACHE}
    caches: dict[str, dict[str, Any]] = {}
    for name, place in {"kernels": grouping.hash_rows._cache.cache_path, **hub}.items():
        files = Path(place).rglob("*") if place else ()
        caches[name] = {"path": place and str(place), "bytes": sum(file.lstat().st_size for file in files)}
    return caches
