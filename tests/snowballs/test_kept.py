"""Run folders that an earlier version wrote are read, reported, held against theory and gone on with.

`tests/kept` holds them as 6d79372 left them, but for figures and pages.
"""

import json
import shutil
from pathlib import Path

import pytest

from darkvocab import report, summary
from darkvocab.numerics import Touching
from darkvocab.snowballs import agreement
from darkvocab.snowballs import settings as manifests
from darkvocab.snowballs.experiments import Questions, Sweep, Trials
from darkvocab.snowballs.run import frame, land

KEPT = Path(__file__).parent.parent / "kept"
SETTINGS = {
    "sweep": lambda: Sweep(
        [2e-6, 8e-6],
        n_tokens=40,
        base="around.npy",
        epsilon=1e-5,
        measure=("geometry", "steps", "topology"),
        seed=7,
    ),
    "trials": lambda: Trials(
        1e-4,
        trials=2,
        n_tokens=30,
        base="random",
        dim=16,
        redraw_base=True,
        epsilon=1.5e-5,
        touching=Touching(2e-5, strict=True),
        sampler="dense",
    ),
    "questions": lambda: Questions([3e-6], n_tokens=30, dim=20, touching=Touching(2e-4)),
    "sweep-interrupted": lambda: Sweep([2e-6, 4e-6, 8e-6], n_tokens=40, base="around.npy", epsilon=1e-5),
}


@pytest.fixture(autouse=True)
def kept(tmp_path, monkeypatch):
    """A copy of the folders, where they were made, with the versions of then."""
    shutil.copytree(KEPT, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    versions = json.loads((KEPT / "sweep" / "manifest.json").read_text())["packages"]
    monkeypatch.setattr(manifests, "versions", lambda: versions)
    return tmp_path


def told(folder):
    return json.loads((folder / "manifest.json").read_text())


@pytest.mark.parametrize("name", ["sweep", "trials", "questions"])
def test_its_records_are_those_of_today(kept, name):
    land(SETTINGS[name](), kept / "new")
    for file in ("records.parquet", "records.csv"):
        assert (kept / "new" / file).read_bytes() == (kept / name / file).read_bytes()
    old, new = told(kept / name), told(kept / "new")
    assert {key: new[key] for key in old if key != "command"} == {key: old[key] for key in old if key != "command"}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sweep", "trials", "questions"])
def test_it_is_reported(kept, name):
    page, *figures = report(kept / name)
    assert told(KEPT / name)["command"].split(" --")[0] in page.read_text()
    assert all(path.stat().st_size for path in figures)


@pytest.mark.parametrize("name", SETTINGS)
def test_it_is_summarised(kept, name):
    result = summary(kept / name)
    assert result["n_records"] == told(KEPT / name)["n_records"]
    assert result["n_landed"] == (1 if name == "sweep-interrupted" else result["n_records"])


@pytest.mark.parametrize("name", ["sweep", "trials", "sweep-interrupted"])
def test_it_is_held_against_theory_around_its_own_base(kept, name):
    assert agreement(kept / name).agrees


def test_without_its_base_it_is_not(kept):
    (kept / "around.npy").unlink()
    with pytest.raises(FileNotFoundError, match=r"its base around\.npy is not there any more"):
        agreement(kept / "sweep")


def test_an_array_of_which_nothing_was_kept_is_refused(kept):
    path = kept / "sweep" / "manifest.json"
    path.write_text(path.read_text().replace("around.npy", "array"))
    with pytest.raises(ValueError, match="its base was an array, which no file keeps"):
        agreement(kept / "sweep")


@pytest.mark.parametrize("command", ["'", "darkvocab sweep", "darkvocab sweep --base"])
def test_a_damaged_command_is_corrupt(kept, command):
    manifest = told(kept / "sweep")
    (kept / "sweep" / "manifest.json").write_text(json.dumps({**manifest, "command": command}))
    with pytest.raises(ValueError, match="not the manifest of a run"):
        agreement(kept / "sweep")


@pytest.mark.parametrize("name", SETTINGS)
def test_it_is_gone_on_with_and_its_manifest_brought_up_to_date_once(kept, name):
    said, landed = [], {path.name: path.read_bytes() for path in (KEPT / name / "records").iterdir()}
    settings = SETTINGS[name]()
    resumed = frame(settings, out=kept / name, resume=True, say=said.append)
    assert said == [f"{kept / name} is of an earlier version of darkvocab; its manifest is brought up to date"]
    assert resumed.equals(frame(settings))
    for file, content in landed.items():
        assert (kept / name / "records" / file).read_bytes() == content
    assert told(kept / name) == {**told(KEPT / name), "status": "complete", **newly(settings)}
    before = {path: path.read_bytes() for path in (kept / name).rglob("*") if path.is_file()}
    assert frame(settings, out=kept / name, resume=True, say=said.append).equals(resumed)
    assert len(said) == 1
    assert {path: path.read_bytes() for path in (kept / name).rglob("*") if path.is_file()} == before


def newly(settings):
    return {"base": settings.base.to_json(), **manifests.command(settings)}


def test_another_run_is_not_gone_on_with(kept):
    before = told(kept / "sweep-interrupted")
    with pytest.raises(ValueError, match=r"holds another run: parameters\.n_tokens was 40, now 41"):
        land(Sweep([2e-6, 4e-6, 8e-6], n_tokens=41, base="around.npy", epsilon=1e-5), "sweep-interrupted", resume=True)
    assert told(kept / "sweep-interrupted") == before
