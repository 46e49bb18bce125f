"""Commands on snowballs: sweep, trials, questions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import darkvocab

from ..errors import InvalidInput
from . import shell
from .progress import watched
from .shell import REQUIRED, Options, app, put, say, takes

# Options of all three commands by their names: type, default, help. The first group is of what is drawn.
DRAWN: Options = {
    "sigma": (str, REQUIRED, "START:STOP:COUNT, both ends included, or a comma list; weight units."),
    "spacing": (str, "linear", "Of START:STOP:COUNT: linear or log."),
    "trials": (int, 1, "Snowballs at each sigma."),
    "tokens": (int, 2100, "Rows of a snowball."),
    "dim": (int | None, None, "Components; by default the base's."),
    "base": (str, "qwen3-4b", "qwen3-4b, qwen3-4b-centred, random, random-unit, or a file with a vector."),
    "grid": (str, "bfloat16", "Number grid to round to."),
    "distribution": (
        *(str, "gaussian"),
        "Of the noise: gaussian, laplace, uniform-ball, uniform-shell; sigma is of each component.",
    ),
    "arithmetic": (str, "float32", "float32 (add in float32, then round) or exact (round once)."),
    "seed": (shell.Seed, 42),
    "sampler": (str, "sparse", "sparse, dense (the same law, slower), or notebook (torch's stream)."),
}
MEASURED: Options = {
    "redraw_base": (bool, False, "Draw a random base anew at each sigma."),
    "measure": (str, "", "A comma list of census, geometry, steps, topology."),
    "over": (str, "", "L-infinity over black_holes, unique rows, or all tokens."),
    "epsilon": (float | None, None, "A length, weight units, to scale columns by."),
    "touching": (float | None, None, "Rows touch within this; by default twice --epsilon, or else 2 steps."),
    "touching_unit": (str, "weight", "Of --touching: weight or steps."),
    "strict": (bool, False, "Rows touch at < (not <=) --touching."),
}
ASKED: Options = {
    "fixed_base": (bool, False, "Keep one random base for every sigma."),
    "threshold": (float, 1e-4, "Tokens touch within this, weight units."),
    "inclusive": (bool, False, "Tokens touch at <= (not <) --threshold."),
}
RUNNING: Options = {
    "engine": (shell.EngineName, "local"),
    "workers": (shell.Workers, None),
    "device": (shell.DeviceName, "cpu"),
    "out": (Path | None, None, "Run folder for records, figures and report."),
    "resume": (shell.Resume, False),
}


def settings_of(experiment: str, options: dict[str, Any]) -> Any:
    """Return the settings of a command's options, but for those that say how it is run."""
    from ..snowballs.bases import is_drawn
    from ..snowballs.questions import Questions
    from ..snowballs.settings import parse_sigmas
    from ..snowballs.sweep import Sweep
    from ..snowballs.trials import Trials

    given = {name: value for name, value in options.items() if name not in (*RUNNING, "as_json")}
    sigmas = parse_sigmas(given.pop("sigma"), given.pop("spacing"))
    given["n_tokens"] = given.pop("tokens")
    if experiment == "questions":
        given["touching"] = darkvocab.numerics.Touching(given.pop("threshold"), strict=not given.pop("inclusive"))
        given["redraw_base"] = not given.pop("fixed_base") and is_drawn(given["base"])
        return Questions(sigmas, **given)
    given["measure"] = [name.strip() for name in given["measure"].split(",")]
    given["touching"] = _touching(given["touching"], given.pop("touching_unit"), given.pop("strict"))
    return {"sweep": Sweep, "trials": Trials}[experiment](sigmas, **given)


def _touching(threshold: float | None, unit: str, strict: bool) -> Any:
    if threshold is None:
        if strict:
            raise InvalidInput("--strict says how rows touch at --touching; give --touching, too")
        return None
    return darkvocab.numerics.Touching(threshold, unit, strict)


def _run(experiment: str, label: str, options: dict[str, Any]) -> None:
    """Run an experiment on snowballs; print its table or its JSON, and write its report where it has a folder."""
    from ..reports.experiments import experiment_json, print_experiment
    from ..snowballs.run import frame, land

    settings = settings_of(experiment, options)
    running = {name: options[name] for name in RUNNING}
    out = options["out"]
    drawn: Any = watched(label, land if out else frame, settings, say=say, **running)
    written = darkvocab.report(out) if out else []
    put(options["as_json"], print_experiment, drawn, experiment, data=lambda: experiment_json(experiment, drawn))
    if out:
        from ..runs.folder import read_manifest
        from ..runs.records import csv_path

        figures = f", figure for print {written[-1]}" if len(written) > 1 else ""
        say(f"open {written[0]}; records in {csv_path(out, read_manifest(out))}{figures}")
    else:
        say("nothing was kept: --out DIR lands records, figures and a report")


@app.command(no_args_is_help=True)
@takes(DRAWN | MEASURED | RUNNING, measure="census,geometry,steps", over="black_holes")
def sweep(**options: Any) -> None:
    """Draw snowballs over a range of sigma and count their black holes (12.2a).

    Example: darkvocab sweep --sigma 1.5e-9:5e-9:1000 --out runs/qwen
    """
    _run("sweep", "sweeping", options)


@app.command(no_args_is_help=True)
@takes(DRAWN | MEASURED | RUNNING, trials=1000, measure="census,geometry,topology", over="unique")
def trials(**options: Any) -> None:
    """Draw many snowballs at one sigma (or several) and take every statistic of each (12.4b).

    Example: darkvocab trials --sigma 3.281911e-3 --trials 100 --epsilon 5.9604645e-5 --out runs/trials
    """
    _run("trials", "drawing", options)


@app.command()
@takes(DRAWN | ASKED | RUNNING, sigma="1e-6:1e-4:10", spacing="log", tokens=2221, base="random-unit")
def questions(**options: Any) -> None:
    """Does rounding alone connect a snowball, at the grid's limit, with plausible populations (13.5a)?

    Example: darkvocab questions --out runs/questions
    """
    _run("questions", "asking", options)
