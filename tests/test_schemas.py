"""The published JSON Schemas: what commands print and write holds them strictly, and docs/files.md names their keys.

Strictly is with no other key wherever an object's keys are listed, so that a new key fails until its schema has it.
"""

import json
import os
import re
import subprocess
import sys
import types
import typing
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path

import cases
import endpoints
import numpy as np
import pytest
import texts
from histories import BY_HAND, write_run
from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match
from safetensors.numpy import load_file, save_file

import darkvocab
from darkvocab.checkpoints import scan_result, series
from darkvocab.embedding.matrix import Tying
from darkvocab.measures import verdict
from darkvocab.measures.vocabulary.differences import Difference, Example
from darkvocab.notebooks.recipes import Comparison
from darkvocab.reports.studies import study_json
from darkvocab.runs.records import read_records
from darkvocab.snowballs import expect, experiments
from darkvocab.snowballs.fit import FitResult, checks, likelihood
from darkvocab.studies import StudyRecord
from darkvocab.training import evolve
from darkvocab.training.outcome import TrainingOutcome
from darkvocab.training.replicas import ReplicaRecord

ROOT = Path(__file__).parents[1]
KEPT = ROOT / "tests/kept"
ENCODER = ROOT / "demo/all-MiniLM-L6-v2"
SCHEMAS = {path.stem: json.loads(path.read_text("utf-8")) for path in sorted((ROOT / "docs/schemas").glob("*.json"))}
TINY = "--layers 1 --heads 2 --width 8 --context 8 --batch 2 --steps 3".split()
BASED = {"base": np.linspace(0.1, 1, 20, dtype=np.float32)}


def strict(part):
    """A schema that also refuses keys that are not listed, wherever keys are."""
    if isinstance(part, list):
        return [strict(one) for one in part]
    if not isinstance(part, dict):
        return part
    closed = {key: strict(one) for key, one in part.items()}
    lists_keys = part.get("type") in ("object", ["object", "null"]) and "properties" in part
    return {"additionalProperties": False, **closed} if lists_keys else closed


@cache
def validator(name):
    return Draft202012Validator(strict(SCHEMAS[name]))


def hold(name, document):
    """Assert that a document, or its text, holds a schema strictly; return it."""
    document = json.loads(document) if isinstance(document, str) else document
    if error := best_match(validator(name).iter_errors(document)):
        pytest.fail(f"{name}.json at {error.json_path}: {error.message[:300]}")
    return document


def hold_file(name, path):
    return hold(name, path.read_text("utf-8"))


@pytest.fixture
def says(cli):
    """Run a command with `--json` and hold what it prints against a schema, by default that of its name."""

    def run(command, *arguments, schema=None, codes=(0,)):
        result = cli(command, *arguments, "--json")
        assert result.code in codes, result.err
        return hold(schema or command, result.out)

    return run


# Schemas themselves --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_schema_stands_alone_and_allows_further_keys(name):
    Draft202012Validator.check_schema(SCHEMAS[name])
    text = json.dumps(SCHEMAS[name])
    assert SCHEMAS[name]["title"]
    assert '"additionalProperties": false' not in text
    assert set(re.findall(r'"\$ref": "#/\$defs/(\w+)"', text)) == set(SCHEMAS[name].get("$defs", {}))
    assert text.count('"$ref"') == text.count('"$ref": "#/$defs/')


def test_a_key_that_no_schema_has_holds_the_published_one_and_fails_here():
    document = {"written": [], "n_written": 0}
    Draft202012Validator(SCHEMAS["report"]).validate(document)
    with pytest.raises(pytest.fail.Exception, match=r"report.json at \$: .*'n_written' was unexpected"):
        hold("report", document)


def test_definitions_of_one_name_are_the_same_in_every_schema():
    known = {}
    for name, schema in SCHEMAS.items():
        for definition, body in schema.get("$defs", {}).items():
            assert known.setdefault(definition, body) == body, (name, definition)


def test_every_command_has_a_schema_and_every_schema_is_on_the_page():
    from typer.main import get_command

    from darkvocab.cli import app

    page = (ROOT / "docs/schemas.md").read_text("utf-8")
    assert set(re.findall(r"\]\(schemas/([\w-]+)\.json\)", page)) == set(SCHEMAS)
    assert set(get_command(app).commands) <= set(SCHEMAS)


# Types in the code ---------------------------------------------------------------------------------------------------

JSON_TYPES = {int: "integer", float: "number", str: "string", bool: "boolean", type(None): "null"}
# A schema, the way to a part of it, and the type that is written there.
WRITTEN = [
    ("scan", "", scan_result.MatrixFacts),
    ("scan", "", scan_result.CensusFacts),
    ("scan", "source", scan_result.SourceFacts),
    ("scan", "tying", Tying),
    ("scan", "l_inf", scan_result.DistanceFacts),
    ("scan", "output", scan_result.CensusFacts),
    ("scan", "vocabulary", scan_result.VocabularyFacts),
    ("scan", "vocabulary differs", Difference),
    ("scan", "vocabulary differs first", Example),
    ("scan", "indicators", scan_result.IndicatorFacts),
    ("scan", "indicators reference", scan_result.ReferenceFacts),
    ("scan", "indicators columns", scan_result.ColumnFacts),
    ("scan", "grades", scan_result.GradeFacts),
    ("scan", "grades sides", scan_result.SideFacts),
    ("scan", "copies", scan_result.Copies),
    ("scan", "neighbours", scan_result.NeighbourFacts),
    ("scan", "neighbours cluster", scan_result.ClusterFacts),
    ("scan", "black_holes", scan_result.BlackHole),
    ("verify", "precision", verdict.Share),
    ("history", "checkpoints", series.CheckpointRecord),
    ("history", "events", series.SeriesEvent),
    ("history", "black_holes", series.HoleRecord),
    ("history", "tokens", series.SeriesToken),
    ("sweep", "records", experiments.SweepRecord),
    ("trials", "records", experiments.TrialRecord),
    ("questions", "records", experiments.QuestionRecord),
    ("expect", "points", expect.Expected),
    ("expect", "comparisons", expect.Compared),
    ("fit", "", FitResult),
    ("fit", "checks", checks.Check),
    ("fit", "ranks", checks.Rank),
    ("fit", "bound", checks.Bound),
    ("fit", "columns", checks.Column),
    ("fit", "gap", checks.Gap),
    ("fit", "association", checks.Association),
    ("fit", "hypotheses", checks.Explanation),
    ("fit", "profile", likelihood.ProfilePoint),
    ("fit", "ridge", likelihood.RidgePoint),
    ("train", "", TrainingOutcome),
    ("train-replicas", "records", ReplicaRecord),
    ("study", "records", StudyRecord),
    ("evolve", "records", evolve.EvolutionRecord),
    ("evolve", "events", evolve.EventRecord),
    ("evolve", "tokens", evolve.TokenRecord),
    ("reproduce", "figures", Comparison),
]


def written_types(kind):
    """The JSON types that values of an annotation have."""
    if isinstance(kind, types.UnionType):
        return set().union(*map(written_types, typing.get_args(kind)))
    origin = getattr(kind, "__supertype__", typing.get_origin(kind) or kind)
    if origin in (tuple, list):
        return {"array"}
    if is_dataclass(origin) or issubclass(origin, Mapping):
        return {"object"}
    return {JSON_TYPES[origin]}


def resolved(name, part):
    """The alternatives that a part of a schema comes to: parts without references."""
    if "$ref" in part:
        return [SCHEMAS[name]["$defs"][part["$ref"].rpartition("/")[2]]]
    return [one for other in part["anyOf"] for one in resolved(name, other)] if "anyOf" in part else [part]


def allowed_types(name, part):
    """The JSON types that a part of a schema allows."""
    kinds = [one.get("type", JSON_TYPES.get(type(one.get("const")))) for one in resolved(name, part)]
    return {kind for some in kinds for kind in ([some] if isinstance(some, str) else some)}


@pytest.mark.parametrize(("name", "way", "kind"), WRITTEN)
def test_what_may_be_null_in_the_code_may_be_null_in_the_schema(name, way, kind):
    (part,) = (one for one in resolved(name, SCHEMAS[name]) if one["type"] != "null")
    for key in way.split():
        part = next(one for one in resolved(name, part["properties"][key]) if one["type"] != "null")
        part = next(one for one in resolved(name, part.get("items", part)))
    known = {"Tying": Tying, "Difference": Difference}
    for field in fields(kind):
        if field.name in ("hub", "census"):  # whose keys are beside the others
            continue
        meant = typing.get_type_hints(kind, localns=known)[field.name]
        may_lack = field.name not in part["required"]
        allowed = allowed_types(name, part["properties"][field.name])
        assert may_lack == (field.default is None and name == "fit"), field.name  # `plain` leaves these out
        if meant is typing.Any:
            continue
        expected = written_types(meant) - ({"null"} if may_lack else set())
        assert expected <= allowed, field.name
        assert allowed - expected <= ({"null"} if "number" in expected else set()), field.name  # what is not finite


# Documents -----------------------------------------------------------------------------------------------------------

SECTIONS = {  # of docs/files.md, and the schemas whose keys they explain
    "`scan --json`": ["scan", "scan-dry-run"],
    "`vocabulary --json`": ["vocabulary"],
    "`doctor --json`": ["doctor"],
    "Records of `verify`": ["verify"],
    "Counts of a corpus": ["corpus"],
    "`check --json`": ["check"],
    "`neighbours --json`": ["neighbours"],
    "`diff --json`": ["diff"],
    "A series of checkpoints": ["history", "series"],
    "`repair`, and `repair --json`": ["repair"],
    "The centroid file": ["centroid"],
    "A run folder": ["report"],
    "Manifest": ["manifest"],
    "`summary --json`": ["summary"],
    "A training's folder": ["training-corpus"],
    "Outcome": ["train"],
    "Replicas of a training": ["train-replicas"],
    "Records of a study": ["study"],
    "`expect --json`": ["expect"],
    "`fit --json`": ["fit"],
    "Columns that records share": ["sweep", "trials", "questions", "reproduce"],
    "A history and its evolution": ["evolve", "evolution"],
}


def listed_keys(part):
    """All keys that a schema lists, however deep."""
    if isinstance(part, list):
        return set().union(*map(listed_keys, part))
    if not isinstance(part, dict):
        return set()
    ours = set(part["properties"]) if isinstance(part.get("properties"), dict) else set()
    return ours.union(*map(listed_keys, part.values()))


@pytest.mark.parametrize("heading", SECTIONS)
def test_documents_and_schemas_name_the_same_keys(heading):
    document = (ROOT / "docs/files.md").read_text("utf-8")
    section = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#+ |\Z)", document, re.MULTILINE | re.DOTALL)[1]
    named = {word for code in re.findall(r"`([^`]+)`", section) for word in re.findall(r"\w+", code)}
    known = set()
    for name in SECTIONS[heading]:
        assert set(SCHEMAS[name]["properties"]) <= named, name
        known |= listed_keys(SCHEMAS[name])
    for table in re.findall(r"^\| key.*\n\|---.*\n((?:\|.*\n)+)", section, re.MULTILINE):
        for cell in re.findall(r"^\| (.*?) \|", table, re.MULTILINE):
            for key in re.findall(r"`(\w+)`", cell):  # `_std`: how some end
                assert key in known or (key[0] == "_" and any(one.endswith(key) for one in known)), key


def test_every_schema_is_of_a_section():
    assert {name for names in SECTIONS.values() for name in names} | {"alarm"} == set(SCHEMAS)


@pytest.mark.slow
def test_the_example_of_the_page_runs(tmp_path):
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    page = (ROOT / "docs/schemas.md").read_text("utf-8")
    lines = re.findall(r"^\$ (.*)$", page, re.MULTILINE)
    assert len(lines) == 2
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for line in lines:
        ran = subprocess.run(line, shell=True, cwd=tmp_path, env={**os.environ, "PATH": path}, capture_output=True)
        assert (ran.returncode, ran.stdout) == (0, b""), ran.stderr
    broken = json.loads((tmp_path / "expect.json").read_text())
    broken["points"][0]["n_tokens"] = "2,100"
    (tmp_path / "expect.json").write_text(json.dumps(broken))
    ran = subprocess.run(line, shell=True, cwd=tmp_path, env={**os.environ, "PATH": path}, capture_output=True)
    assert ran.returncode == 1


# What commands print and write ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A tied model with a tokenizer and a chat template; a dozen of its rows were never trained."""
    return texts.model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def untied(tmp_path_factory):
    """The same with an output matrix of its own, and four rows that are one."""
    folder = texts.model(tmp_path_factory.mktemp("untied"))
    rng = np.random.default_rng(5)
    rows = load_file(folder / "model.safetensors")["model.embed_tokens.weight"].copy()
    rows[[7, 9, 50, 51]] = rows[7]
    output = rng.normal(0, 0.2, rows.shape).astype(np.float32)
    output[texts.UNTRAINED] = rows[texts.UNTRAINED]
    save_file({"model.embed_tokens.weight": rows, "lm_head.weight": output}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"vocab_size": len(rows), "tie_word_embeddings": False}))
    return folder


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """Rows alone, five of them equal or nearly; and the same with other ones equal."""
    folder = tmp_path_factory.mktemp("plain")
    rows = np.random.default_rng(1).normal(0, 0.1, (60, 8)).astype(np.float32)
    rows[[4, 5]] = rows[3]
    rows[[6, 7]] = np.nextafter(rows[3], 1)
    np.save(folder / "a.npy", rows)
    rows[[3, 20]] = rows[[30, 21]]
    np.save(folder / "b.npy", rows)
    return folder / "a.npy", folder / "b.npy"


@pytest.fixture(scope="module")
def answers(tmp_path_factory, model):
    """A run of verify, that asked a server for few tokens; some answers are bounds, some are missing."""
    out = tmp_path_factory.mktemp("answers") / "run"
    with endpoints.Endpoint("vLLM old").running() as served:
        darkvocab.verify(model, out, endpoint=served.url, tokens=[40, 65, 160, 300, 301], controls=5, missed=5)
    return out


def test_scans_with_and_without_a_tokenizer(says, model, untied, plain):
    scanned = says("scan", model, "--tokens", "all")
    assert scanned["vocabulary"]
    assert scanned["template_tokens"] is not None
    scanned = says("scan", untied, "--tokens", "graded")
    assert scanned["output"]
    assert scanned["tokens"][0]["output_norm"]
    scanned = says("scan", plain[0], "--tokens", "all", "--no-sha256", "--bitwise")
    assert scanned["vocabulary"] is scanned["source"]["sha256"] is None
    says("scan", plain[1], "--grid", "bfloat16")
    says("scan", model, "--tokenizer", "none", "--tokens", "weak")


@pytest.mark.parametrize(
    "case",
    "decayed damaged copied padded mlx fp8 per_layer untied_without_output tied_but_differs nonfinite".split(),
)
def test_scans_and_checks_of_every_kind_of_checkpoint(case, says, tmp_path):
    folder = cases.saved(tmp_path / case, case)
    more = ["--skip-nonfinite"] if case == "nonfinite" else []
    scanned = says("scan", folder, "--tokens", "graded", *more)
    assert bool(scanned["skipped"]) == (case == "nonfinite")
    assert (scanned["neighbours"] is None) == (case in ("mlx", "fp8"))
    says("scan", folder, "--dry-run", schema="scan-dry-run")
    says("check", folder, *more, codes=(0, 1))


def test_a_model_on_the_hub(says, hub, model):
    hub.add("org/model", {path.name: path.read_bytes() for path in model.iterdir()})
    assert says("scan", "org/model", "--dry-run", schema="scan-dry-run")["source"]["commit"]
    assert says("scan", "org/model")["source"]["bytes_read"]
    assert says("history", "org/model")["checkpoints"][0]["commit"]


def test_answers_of_a_server_and_counts_of_a_corpus_beside_the_weights(says, model, answers, tmp_path):
    """Some tokens were asked for, and some of these could not be."""
    (tmp_path / "a.txt").write_text("all is well\nthe fog\n\nis a fog, and fog\nno more fog (A)")
    counted = says("corpus", tmp_path / "a.txt", "--model", model, "--verified", answers, "--out", tmp_path / "run")
    assert counted["tokens"]
    assert says("corpus", tmp_path / "a.txt", "--model", model, "--tokens", "0-255")["tokens"]
    hold_file("manifest", tmp_path / "run/manifest.json")
    hold_file("manifest", answers / "manifest.json")
    beside = ["--verified", answers, "--counts", tmp_path / "run/counts.parquet"]
    scanned = says("scan", model, "--tokens", "all", *beside)
    assert scanned["verified"]["n_asked"]
    assert scanned["counted"]["n_tokens"]
    says("check", model, *beside, codes=(0, 1))
    says("summary", answers)


@pytest.mark.slow
def test_verdicts_of_a_server(says, model):
    with endpoints.Endpoint("llama.cpp").running() as served:
        says("verify", model, "--endpoint", served.url, "--controls", 5, "--missed", 40)
    with endpoints.Endpoint("Ollama").running() as served:
        served.change = lambda answer: {**answer, "logprobs": answer["logprobs"][:2]}  # the last place is left out
        few = ("--tokens", "160,40,300", "--controls", 0, "--missed", 0)
        assert says("verify", model, "--endpoint", served.url, *few)["n_not_asked"] == 1


def test_tokenizers(says, model):
    assert says("vocabulary", model / "tokenizer.json", "--tokens", "all")["n_tokens"] == texts.N_TOKENS
    assert says("vocabulary", model, "--seconds", 0)["categories"]["unknown"]


@pytest.mark.slow
@pytest.mark.skipif(not ENCODER.is_dir(), reason="make demo has not been run")
def test_a_real_encoder_and_its_tokenizer(says):
    assert says("scan", ENCODER, "--tokens", "dark")["tokens"]
    assert says("vocabulary", ENCODER, "--tokens", "unreachable")["proofs"]


def test_what_touches_what_is_averaged_and_what_differs(says, untied, plain, model, tmp_path):
    assert says("neighbours", plain[0])["cluster"]["component"]
    assert says("neighbours", model)["cluster"]["component"] is None
    says("centroid", plain[0], "-o", tmp_path / "centroid.safetensors")
    assert says("diff", *plain)["matrices"][0]["moved"]
    assert says("diff", plain[0], plain[0])["matrices"][0]["moved"] is None
    assert len(says("diff", untied, model)["matrices"]) == 2
    assert says("history", *plain)["summary"]["n_checkpoints"] == 2
    says("history", plain[0], model, plain[1], "--out", tmp_path / "series")
    hold_file("series", tmp_path / "series/series.json")


@pytest.mark.parametrize("how", ["mean", "pieces", "gaussian", "output"])
def test_repairs(how, says, untied, tmp_path):
    said = ("repair", untied, "--how", how, "--tokens", "265-267", "-o", tmp_path / "out")
    assert "n_bytes_compared" not in says(*said, "--dry-run")
    assert "n_bytes_compared" in says(*said)


@pytest.mark.slow
def test_a_repair_of_merges(says, model, tmp_path):
    assert says("repair", model, "--how", "merges", "--tokens", "265-267", "-o", tmp_path / "out")["splits"]


@pytest.mark.parametrize(
    ("command", "more"),
    [
        ("sweep", ["--sigma", "0,2e-6", "--epsilon", "1e-5", "--touching", "2", "--touching-unit", "steps"]),
        ("sweep", ["--sigma", "1e-6", "--measure", "census", "--base", "random"]),
        ("sweep", ["--sigma", "1e37", "--grid", "float32"]),
        ("trials", ["--sigma", "2e-6", "--trials", "3"]),
        ("trials", ["--sigma", "2e-6,1e-5", "--trials", "2", "--epsilon", "1e-5"]),
        ("questions", ["--sigma", "0,3e-6"]),
        ("questions", ["--sigma", "4e37", "--grid", "float32"]),
    ],
)
def test_snowballs(command, more, says, tmp_path):
    says(command, "--tokens", 30, "--dim", 20, *(["--base", "random-unit"] if "--base" not in more else []), *more)
    says(command, "--tokens", 1, "--dim", 20, "--base", "random-unit", *more)


@pytest.mark.slow
def test_theory_and_a_run_folder(says, tmp_path):
    run = darkvocab.snowballs.land(darkvocab.snowballs.Sweep([2e-4, 1e-3], **BASED, n_tokens=30), tmp_path / "run")
    hold_file("manifest", run / "manifest.json")
    assert "agreement" not in says("expect", "--sigma", "0,1e-9", "--tokens", 40)
    assert says("expect", "--run", run)["comparisons"]
    assert says("summary", run)["columns"]["sigma"]["by_sigma"]
    assert says("summary", run, "--column", "grid")["texts"]
    assert says("report", run)["written"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "target",
    [
        ["2055,16,10,10,9"],
        ["5,3", "--singletons", "unknown"],
        ["40", "--singletons", "0"],
        ["5,3", "--singletons", "2", "--compare"],
        ["20,5,3", "--singletons", "2", "--offset", "fit", "--distribution", "fit"],
    ],
)
def test_fits(target, says, tmp_path, monkeypatch):
    for place, name, few in ((likelihood, "OFFSETS", likelihood.OFFSETS[::9]), (checks, "OFF_LATTICE", 1)):
        monkeypatch.setattr(place, name, few)
    np.save(tmp_path / "base.npy", BASED["base"][:6])
    says("fit", "--target", *target, "--base", tmp_path / "base.npy", "--draws", 20)


def test_a_fit_to_rows_that_are_known(says, tmp_path):
    rows = np.tile(np.linspace(0.1, 1, 12, dtype=np.float32), (40, 1))
    for n in range(40):
        rows[n, n % 3] = np.nextafter(rows[n, n % 3], np.float32(1 + n % 2))
    np.save(tmp_path / "rows.npy", rows)
    assert says("fit", "--target", tmp_path / "rows.npy", "--draws", 20)["columns"]


@pytest.mark.slow
def test_a_history(says, tmp_path):
    result = write_run(tmp_path / "run", BY_HAND, [3, 4, 5], record_every="10", parameters={"init_sigma": 1e-5})
    evolved = says("evolve", result / "embedding_evolution.safetensors", "--noise-epsilon", "1e-5")
    assert len(evolved["summary"]["verdicts"]) == 2
    darkvocab.evolve(result, out=tmp_path / "out")
    hold_file("evolution", tmp_path / "out/evolution.json")
    (result / "corpus.json").unlink()
    assert says("evolve", result / "embedding_evolution.safetensors")["summary"]["unseen"] is None


@pytest.mark.parametrize("folder", [path for path in sorted(KEPT.rglob("manifest.json")) if "parts" not in path.parts])
def test_manifests_that_were_kept(folder):
    hold_file("manifest", folder)


def test_corpora_of_trainings_that_were_kept():
    for path in sorted((KEPT / "trainings").rglob("corpus.json")):
        hold_file("training-corpus", path)


@pytest.mark.slow
def test_published_figures(says):
    pytest.importorskip("torch")
    assert says("reproduce", "12.1a")["figures"]


@pytest.mark.slow
def test_trainings(says, cli, tmp_path):
    pytest.importorskip("transformers")
    (tmp_path / "text.txt").write_text("the fog, and a gong " * 20)
    text = ["--corpus", tmp_path / "text.txt"]
    assert says("train", *TINY, *text, "--out", tmp_path / "one")["run"]
    hold_file("train", tmp_path / "one/outcome.json")
    hold_file("training-corpus", tmp_path / "one/corpus.json")
    up = ("--optimizer", "sgd", "--clip", 0, "--start", "point", "--lr", "1e30", "--out", tmp_path / "up")
    assert "diverged" in cli("train", *TINY, *text, *up).err
    assert hold_file("train", tmp_path / "up/outcome.json")["status"] == "diverged"
    several = ("--noise", "gaussian", "--replicas", 2, "--engine", "serial", "--out", tmp_path / "several")
    says("train", *TINY, *text, *several, schema="train-replicas")
    for name in ("one", "up", "several", "several/seed-42"):
        hold_file("manifest", tmp_path / name / "manifest.json")
    out = darkvocab.studies.study("decay", tmp_path / "study", quick=True, replicas=2, engine="serial")
    manifest = hold_file("manifest", out / "manifest.json")
    hold("study", json.dumps(study_json(out, read_records(out), manifest["parameters"])))


@pytest.mark.slow
def test_a_recording_with_alarms(tmp_path):
    torch = pytest.importorskip("torch")
    from darkvocab.training.recorder import Recorder

    model = torch.nn.Embedding(8, 4)
    optimizer = torch.optim.SGD(model.parameters())
    with Recorder(tmp_path / "run", embedding=model.weight, gradients=True, on_alarm="record") as recorder:
        recorder.step(model, optimizer)
        with torch.no_grad():
            model.weight[3] = torch.nan
            model.weight[5] = model.weight[4]
        model(torch.arange(3)).sum().backward()
        optimizer.step()
    hold_file("manifest", tmp_path / "run/manifest.json")
    lines = (tmp_path / "run/alarms.jsonl").read_text().splitlines()
    assert {hold("alarm", line)["kind"] for line in lines} == {"equal", "broken"}
