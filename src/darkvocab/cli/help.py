"""Help that people can scan: commands under the question they answer, options by purpose, the common ones first."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand, TyperGroup

COMMANDS = {
    "Which tokens are dark in my model?": {
        "scan": "List the tokens that were never learned or that share a row.",
        "vocabulary": "Explain every token of a tokenizer, without weights.",
        "check": "Hold a checkpoint against a policy: a gate for releases.",
        "neighbours": "List the tokens whose rows touch, and their clusters.",
        "centroid": "Write the mean of the black holes, a base for sweep.",
        "diff": "Compare two checkpoints row by row.",
        "history": "Follow black holes and rows through many checkpoints.",
        "repair": "Copy a checkpoint with fresh rows for dark or weak tokens.",
    },
    "How does such structure arise?": {
        "sweep": "Draw snowballs over a range of sigma, count black holes.",
        "trials": "Draw many snowballs at one sigma, take every statistic.",
        "questions": "Ask whether rounding alone explains a cluster (13.5a).",
        "expect": "Compute the expected census in closed form.",
        "fit": "Find the sigma that explains an observed census.",
    },
    "How does it happen in training?": {
        "train": "Train a small GPT-2 and record its embedding.",
        "evolve": "Follow the black holes of a training, step by step.",
    },
    "Runs and notebooks": {
        "report": "Write the figures and the page of a finished run.",
        "summary": "Print statistics of a run's records, column by column.",
        "reproduce": "Run a notebook's experiment beside what it published.",
    },
}
READING, SNOWBALL = "What is read", "The snowball"
OPTIONS = {
    READING: "tensor tensor_b matrix grid bitwise tokenizer checksum revisions",
    SNOWBALL: "dim redraw_base fixed_base grid distribution arithmetic sampler",
    "What is measured": "measure over epsilon touching touching_unit strict threshold inclusive noise_epsilon",
    "Start and noise": "start init_unit init_sigma init_drawn noise noise_sigma noise_rows",
    "The model": "norm tied layers heads width context",
    "The optimizer": "precision rounding optimizer learning_rate weight_decay schedule clip label_shift",
    "What is recorded": "record_every record",
    "What is written": "csv html show junit sarif model_card suppress suppress_which figure as_json",
    "How it runs": "engine workers device resume dry_run link",
}


def section_of(command: str, option: str) -> str | None:
    """Return the heading that an option stands under in the help of a command; None for the common ones."""
    of_checkpoints = command in COMMANDS["Which tokens are dark in my model?"]
    for heading, names in OPTIONS.items():
        if option in names.split() and heading != (SNOWBALL if of_checkpoints else READING):
            return heading
    return None


class Command(TyperCommand):
    """A command whose help groups its options."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments, then the options in their sections."""
        arguments: list[tuple[str, str]] = []
        sections: dict[str | None, list[tuple[str, str]]] = {None: [], **{heading: [] for heading in OPTIONS}}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is None:
                continue
            if parameter.param_type_name == "argument":
                arguments.append(record)
            else:
                sections[section_of(self.name or "", parameter.name or "")].append(record)
        for heading, rows in {"Arguments": arguments, **sections}.items():
            if rows:
                with formatter.section(heading or "Options"):
                    formatter.write_dl(rows)


class Group(TyperGroup):
    """The application, whose help groups its commands by question."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write one whole line for each command."""
        width = max(len(name) for rows in COMMANDS.values() for name in rows)
        for heading, rows in COMMANDS.items():
            formatter.write(f"\n{heading}\n")
            with formatter.indentation():
                formatter.write_dl([(name.ljust(width), short) for name, short in rows.items()])

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of all commands in the order of the help."""
        return [name for rows in COMMANDS.values() for name in rows if name in self.commands]
