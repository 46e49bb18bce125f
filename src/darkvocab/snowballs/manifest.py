"""Manifest of a run of snowballs: every setting as data, and the command that repeats it."""

import base64
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import CorruptFile, InvalidInput, MissingFile
from ..runs.folder import repeating, versions
from .bases import DEFAULT_DIM, FIXED, Base, is_drawn, load_base
from .settings import RunSettings, defaults_of, settings_of

ARRAY = "its base was given as an array, which no command line can hold; the manifest keeps the numbers"

PARAMETERS = "sigmas trials n_tokens hidden_dim base redraw_base grid distribution arithmetic".split()
PARAMETERS += "sampler measure over touching epsilon".split()


def manifest(settings: RunSettings) -> dict[str, Any]:
    """Return what ran, but for where, when and by how many workers: these change no record."""
    base = settings.base
    read = [] if base.kind == "drawn" else [{"base": base.name, "sha256": base.sha256, "shape": [settings.hidden_dim]}]
    return {
        "experiment": settings.experiment,
        **command(settings),
        "base": base.to_json(),
        "parameters": {
            **{name: getattr(settings, name) for name in PARAMETERS},
            "base": base.name,
            "measure": ["census", *settings.measure],
            "touching": str(settings.touching) if settings.touching else None,
        },
        "seed": settings.seed,
        "packages": versions(*(["torch"] if settings.sampler == "notebook" else [])),
        "inputs": read,
        "n_records": len(settings),
    }


def command(settings: RunSettings) -> dict[str, str | None]:
    """Return the command that repeats a run, as `repeating`, with sigma in full."""
    kind = type(settings)
    given = options(kind, settings_of(settings))
    defaults = options(kind, defaults_of(kind))
    sigmas = ",".join(repr(sigma) for sigma in settings.sigmas)
    obstacle = ARRAY if settings.base.kind == "array" else None
    return repeating(settings.experiment, {"sigma": sigmas, **given}, defaults, obstacle)


def options(kind: type[RunSettings], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a command, but for sigma, that have these settings."""
    base = settings["base"]
    return {
        "trials": settings["trials"],
        "tokens": settings["n_tokens"],
        "dim": settings["dim"] if is_drawn(base) and settings["dim"] != DEFAULT_DIM else None,
        "base": base.option if isinstance(base, Base) else base,
        **{name: settings[name] for name in ("grid", "distribution", "arithmetic", "sampler", "seed")},
        **kind.options(settings),
    }


def base_of(folder: Path, manifest: dict[str, Any]) -> Base:
    """Load the base, not a drawn one, of the run in `folder` and compare it by its hash.

    Raises as `load_base`; MissingFile where its file is gone, CorruptFile for what is no manifest
    of a run, InvalidInput where the file holds another vector now, or for an array, of which an
    earlier version kept nothing.
    """
    try:
        name, sha256 = manifest["parameters"]["base"], str(manifest["inputs"][0]["sha256"])
        spec = _kept(name, manifest)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise CorruptFile(f"{folder / 'manifest.json'}: not the manifest of a run ({error!r})") from None
    if isinstance(spec, Path) and not spec.exists():
        if name == "array":
            raise InvalidInput(f"{folder}: its base was an array, which no file keeps; sweep around a .npy file of it")
        raise MissingFile(f"{folder}: its base {spec} is not there any more; put it back, or go to where it ran")
    base = load_base(spec)
    if base.sha256 != sha256:
        raise InvalidInput(
            f"{folder}: its base {base.option} is another now (sha256 {base.sha256[:12]}, it was {sha256[:12]}); "
            "put back the one that it was swept around"
        )
    return base


def _kept(name: str, manifest: dict[str, Any]) -> str | Path | Base:
    """Return for `load_base` what `Base.to_json` wrote; of an earlier manifest, whose only path is in its command."""
    if "base" not in manifest:
        words = shlex.split(manifest["command"])
        path = words[words.index("--base") + 1]
        return name if name in FIXED else Path(path)
    kept = manifest["base"]
    if kept["kind"] == "file":
        return Path(kept["path"])
    if kept["kind"] == "array":
        if kept["dtype"] not in ("float32", "float64"):
            raise ValueError(f"a base of {kept['dtype']}")
        return Base(name=name, vector=np.frombuffer(base64.b64decode(kept["bytes"], validate=True), kept["dtype"]))
    if name not in FIXED:
        raise ValueError(f"no base {name!r} is built in")
    return name
