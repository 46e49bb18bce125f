"""Words for people (`labels.toml`): names of columns in tables and above panels, and the sentences of pages."""

import tomllib
from typing import Any

from .document import read

WORDS: dict[str, dict[str, Any]] = tomllib.loads(read("labels.toml"))
LABELS: dict[str, str] = WORDS["labels"]
TITLES: dict[str, str] = {**LABELS, **WORDS["titles"]}
PAGES = WORDS["pages"]


def labels(*columns: str) -> dict[str, str]:
    """Return the label of each column for a table."""
    return {column: LABELS[column] for column in columns}


def page_words(experiment: str, of: str) -> dict[str, Any]:
    """Return title, headings and terms of an experiment's page, and its leading sentence on the run that `of` names."""
    return {**PAGES[experiment], "lead": PAGES[experiment]["lead"].format(of=of)}


COUNTS = labels("n_unique", "n_black_holes", "black_hole_population", "n_singletons", "largest_bh")
