"""Tokens of a corpus: counts as a plain loop has them, places of those sought, bounds, interrupted runs."""

import gzip
import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import texts as made

from darkvocab import corpus
from darkvocab.corpora import counting, documents, run
from darkvocab.errors import CorruptFile, InvalidInput, MissingFile, RunFolderRefused
from darkvocab.measures.counts import COUNTS_FILE, Counts, never
from darkvocab.sources import open_source
from darkvocab.sources.tokenizer import open_tokenizer, tokenizer_of

ROOT = Path(__file__).parents[2]
SMOLLM2 = ROOT / "demo/SmolLM2-135M-Instruct.Q4_1.gguf"
SHARES = ("share_each", "missing_mass", "missing_mass_high")
MINILM = ROOT / "demo/all-MiniLM-L6-v2"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return made.model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def many(tmp_path, monkeypatch):
    """A corpus of many small pieces, of files that are cut and files that share one."""
    monkeypatch.setattr(documents, "PIECE_BYTES", 3_000)
    monkeypatch.setattr(run, "LANDED", 0.0)
    folder = tmp_path / "corpus"
    folder.mkdir()
    lot = random.Random(1)
    words = ["fog", "gong", "fort", "so", "well", "é", "a\nb"]
    texts = [" ".join(lot.choices(words, k=lot.randint(0, 60))) for _ in range(200)]
    (folder / "a.jsonl").write_bytes(made.as_json(texts))
    (folder / "b.txt").write_text("\n".join(texts))
    (folder / "c.parquet").write_bytes(made.as_parquet(texts))
    for n, text in enumerate(texts[:20]):
        (folder / f"d{n}.txt").write_text(text)
    return folder, texts


@pytest.mark.parametrize("name", made.FILES)
def test_counts_are_those_of_a_plain_loop_in_every_kind_of_file(name, model, tmp_path):
    file = tmp_path / name
    file.write_bytes(made.FILES[name](made.TEXTS))
    counts = corpus(file, model=model)
    assert made.of(counts) == made.plain(made.TEXTS)
    assert counts.read["n_texts"] == len([text for text in made.TEXTS if text])
    assert counts.read["n_bytes"] == file.stat().st_size


def test_sought_tokens_have_their_places_with_the_text_around(model, tmp_path):
    (tmp_path / "a.txt").write_text("all is well\nthe fog\n\nis a fog, and fog\nno more fog")
    (tmp_path / "b.jsonl").write_text('{"text": "well\\nthe fort"}\n{"text": "a gong"}\n')
    counts = corpus(tmp_path, model=model)
    text = made.rules().decode
    assert {text([token]) for token in counts.occurring()["id"]} == {"fo", "go"}
    assert set(counts.tokens.filter(pl.col("grade") == "untrained")["id"]) == set(made.UNTRAINED)
    (fo,), (go,) = (
        counts.occurring().filter(pl.col("id") == made.rules().encode(one).ids[0]).to_dicts() for one in ("fo", "go")
    )
    assert (fo["count"], fo["n_texts"], go["count"], go["n_texts"]) == (5, 2, 1, 1)
    places = counts.places[fo["id"]]
    assert [one["line"] for one in places] == [2, 4, 4]  # three at most are kept
    assert (places[1]["before"], places[1]["after"]) == ("he fog\n\nis a ", "g, and fog\nno ")
    assert counts.places[go["id"]] == [{"file": str(tmp_path / "b.jsonl"), "line": 2, "before": "a ", "after": "ng"}]
    reports = counts.to_json()
    assert reports["kinds"]["untrained"] == {"n_tokens": 12, "n_occurring": 2, "n_occurrences": 6}
    assert [one["places"] for one in reports["tokens"]] == [places, counts.places[go["id"]]]


def test_lines_go_on_from_piece_to_piece(model, many):
    folder, texts = many
    for name, lines in (("b.txt", "\n".join(texts).split("\n")), ("a.jsonl", None)):
        counts = corpus(folder / name, model=model, tokens=range(256, 320))
        assert counts.read["n_pieces"] > 3
        for token, places in counts.places.items():
            word = made.rules().decode([token])
            for place in places:
                assert word in (texts[place["line"] - 1] if lines is None else lines[place["line"] - 1])


def test_tokens_may_be_ids_and_only_those_are_looked_for(model, tmp_path):
    (tmp_path / "a.txt").write_text("all is well")
    counts = corpus(tmp_path / "a.txt", model=model, tokens=[ord("w") - 33, 300])
    assert counts.occurring()["text"].to_list() == ["w"]


@pytest.mark.slow
def test_an_interrupted_run_goes_on_to_the_same_bytes(model, many, tmp_path):
    folder, texts = many
    straight, cut = tmp_path / "straight", tmp_path / "cut"
    whole = corpus(folder, straight, model=model)
    assert made.of(whole)[0] == sum(
        (
            made.plain([one] if one == "\n".join(texts) else texts[:n])[0]
            for one, n in (("", 200), ("\n".join(texts), 0), ("", 200), ("", 20))
        ),
        Counter(),
    )
    lot = random.Random(2)
    for _ in range(20):
        after = lot.randint(0, 3)

        def interrupt(done, total):
            nonlocal after
            after -= 1
            if after < 0:
                raise KeyboardInterrupt

        try:
            corpus(folder, cut, model=model, resume=cut.exists(), progress=interrupt)
            break
        except KeyboardInterrupt:
            assert json.loads((cut / "manifest.json").read_text())["status"] == "interrupted"
    else:
        corpus(folder, cut, model=model, resume=True)
    with pytest.raises(RunFolderRefused, match="--resume goes on with it"):
        corpus(folder, cut, model=model)
    for name in (COUNTS_FILE, "manifest.json"):
        assert (cut / name).read_bytes() == (straight / name).read_bytes()
    again = corpus(folder, cut, model=model, resume=True)
    assert again.to_json() == whole.to_json()
    with pytest.raises(RunFolderRefused, match=r"holds another run: .*parameters.field was \"text\", now \"n\""):
        corpus(folder, cut, model=model, field="n", resume=True)


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on_to_the_same_bytes(model, many, tmp_path):
    folder, _ = many
    code = (
        "import sys, time\nfrom darkvocab import corpus\nfrom darkvocab.corpora import documents, run\n"
        "documents.PIECE_BYTES, run.LANDED = 3_000, 0.0\n"
        f"corpus({str(folder)!r}, sys.argv[1], model={str(model)!r}, resume=True, "
        "progress=lambda done, total: (print(done, flush=True), time.sleep(0.02)))"
    )
    corpus(folder, tmp_path / "straight", model=model)
    lot = random.Random(3)
    for _ in range(2):
        with subprocess.Popen([sys.executable, "-c", code, tmp_path / "cut"], stdout=subprocess.PIPE) as child:
            child.stdout.readline()
            time.sleep(lot.random() / 10)
            child.send_signal(signal.SIGKILL)
    subprocess.run([sys.executable, "-c", code, tmp_path / "cut"], check=True, stdout=subprocess.DEVNULL)
    for name in (COUNTS_FILE, "manifest.json"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "straight" / name).read_bytes()


@pytest.mark.slow
def test_worker_processes_count_the_same(model, many):
    folder, _ = many
    assert corpus(folder, model=model, engine="processes", workers=2).to_json() == corpus(folder, model=model).to_json()


def test_messages_of_a_chat_go_through_the_template(model, tmp_path):
    (tmp_path / "a.jsonl").write_text(json.dumps({"messages": made.CHAT}))
    pl.DataFrame({"messages": [made.CHAT]}).write_parquet(tmp_path / "a.parquet")
    for name in ("a.jsonl", "a.parquet"):
        counts = corpus(tmp_path / name, model=model, field="messages")
        assert made.of(counts) == made.plain(["am<user>fog?</>\n<assistant>go</>\n"])


@pytest.mark.slow
def test_a_template_gives_what_transformers_makes_of_it(tmp_path):
    transformers = pytest.importorskip("transformers")
    templates = [
        made.TEMPLATE,
        "{{ messages | tojson }}{{ eos_token }}",
        "{% for m in messages %}{{ m.role }}{% break %}{% endfor %}",
    ]
    chat = [*made.CHAT, {"role": "user", "content": "é <&> \U0001f642"}]
    for n, template in enumerate(templates):
        folder = made.model(tmp_path / str(n), template=template)
        theirs = transformers.PreTrainedTokenizerFast.from_pretrained(folder, eos_token="bp")
        theirs.save_pretrained(folder)
        ours = counting.Counting(source=str(folder), n_tokens=320, sought=(), field="text").templated(chat, "here")
        assert ours == theirs.apply_chat_template(chat, tokenize=False)


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (None, "a.jsonl:1: messages of a chat, and .* has no chat template"),
        (
            "{{ raise_exception('roles must alternate') }}",
            r"a.jsonl:1: the chat template of .* fails \(roles must alternate\)",
        ),
        ("{{ ''.__class__.__mro__ }}", "the chat template of .* fails"),
        ("{% for %}", "the chat template of .* fails"),
    ],
)
def test_a_template_that_is_missing_or_fails_is_refused(template, said, tmp_path):
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": made.CHAT}))
    with pytest.raises(InvalidInput, match=said):
        corpus(tmp_path / "a.jsonl", model=made.model(tmp_path / "model", template=template))


def test_a_tokenizer_of_another_vocabulary_is_refused_and_what_landed_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(documents, "PIECE_BYTES", 100)
    monkeypatch.setattr(run, "LANDED", 0.0)
    folder = made.model(tmp_path / "model", n_rows=305)
    (tmp_path / "a.txt").write_text("all is well\n" * 30 + "a gong")
    with pytest.raises(InvalidInput, match=r"a.txt: the tokenizer of .* gives token 310, and the model has 305 rows"):
        corpus(tmp_path / "a.txt", tmp_path / "out", model=folder)
    assert Counts.open(tmp_path / "out" / COUNTS_FILE).read["n_pieces"] >= 1


def test_what_cannot_be_counted_is_refused(model, tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("well")
    for given, error, said in (
        ({"resume": True}, InvalidInput, "--resume needs the --out folder"),
        ({"tokens": "400"}, InvalidInput, "there is no token 400"),
        ({"verified": tmp_path}, MissingFile, "holds no run"),
    ):
        with pytest.raises(error, match=said):
            corpus(tmp_path / "a.txt", model=model, **given)
    with pytest.raises(InvalidInput, match="standard input is read by this process"):
        corpus("-", model=model, engine="processes")
    (made.model(tmp_path / "model") / "tokenizer.json").unlink()
    with pytest.raises(MissingFile, match="there is no tokenizer beside"):
        corpus(tmp_path / "a.txt", model=tmp_path / "model")
    corpus(tmp_path / "a.txt", tmp_path / "out", model=model)
    (tmp_path / "out" / COUNTS_FILE).write_bytes(b"PAR1")
    with pytest.raises(CorruptFile, match="not counts of a corpus"):
        corpus(tmp_path / "a.txt", tmp_path / "out", model=model, resume=True)


def test_the_bound_of_the_missing_mass_holds_where_the_truth_is_known():
    """95% limits over 400 drawn corpora: fewer than 360 would hold with a chance below 1e-4, were they so."""
    rng = np.random.default_rng(5)
    shares = 1 / np.arange(1, 5_001)
    shares /= shares.sum()
    held = each = 0
    for _ in range(400):
        counts = rng.multinomial(20_000, shares)
        reports = never(counts)
        held += shares[counts == 0].sum() <= reports["missing_mass_high"]
        each += shares[4_000] <= reports["share_each"] or counts[4_000] > 0
        assert reports["n"] == (counts == 0).sum()
    assert held >= 360
    assert each >= 360
    assert never(np.zeros(7, np.int64)) == {"n": 7, "of": 7, "n_once": 0} | dict.fromkeys(SHARES)


@pytest.mark.slow
@pytest.mark.skipif(not SMOLLM2.exists(), reason="make demo fetches it")
def test_our_documents_on_a_real_tokenizer_are_counted_as_by_a_plain_loop():
    files = sorted((ROOT / "docs").glob("*.md"))
    tokenizer = tokenizer_of(open_source(SMOLLM2))
    total, texts = Counter(), Counter()
    for file in files:
        ids = tokenizer.encode([file.read_text()])[0].tolist()
        total.update(ids)
        texts.update(set(ids))
    counts = corpus(files, model=SMOLLM2)
    assert made.of(counts) == (total, texts)
    for token, places in counts.places.items():
        for place in places:
            line = Path(place["file"]).read_text().split("\n")[place["line"] - 1]
            assert tokenizer.texts[token].strip() in line


@pytest.mark.slow
@pytest.mark.skipif(not MINILM.exists(), reason="make test fetches it")
def test_lines_are_known_where_the_tokenizer_knows_none(tmp_path):
    (tmp_path / "a.txt").write_text("one\n\nthe frog jumps\nhigh")
    frog = open_tokenizer(MINILM).encode(["frog"])[0].tolist()
    counts = corpus(tmp_path / "a.txt", model=MINILM, tokens=frog)
    assert [(one["line"], one["before"], one["after"]) for one in counts.places[frog[0]]] == [(3, " the", " jumps")]


def test_the_command_prints_a_table_json_and_a_verdict(cli, model, tmp_path):
    text, out, csv = tmp_path / "a.txt", tmp_path / "run", tmp_path / "a.csv"
    text.write_bytes(b"a gong \xff\x1b[2J\n")
    made_ = cli("corpus", text, "--model", model, "--out", out, "--csv", csv, "--fail-on", "weak,untrained")
    assert made_.code == 1
    assert "untrained" in made_.out
    assert "1 lines held bytes" in made_.out
    assert "\x1b" not in made_.out
    assert pl.read_csv(csv).select("text", "count", "line").rows() == [("go", 1, 1)]
    reports = json.loads(cli("corpus", text, "--model", model, "--json").out)
    assert [one["text"] for one in reports["tokens"]] == ["go"]
    text.write_text("all is well")
    assert cli("corpus", text, "--model", model, "--fail-on", "untrained").code == 0
    for word, said in (("dark", "unknown kind of token 'dark'"), ("verified", "needs a run of verify")):
        refused = cli("corpus", text, "--model", model, "--fail-on", word)
        assert (refused.code, said in refused.err) == (2, True)
    for command in ("report", "summary"):
        assert (cli(command, out).code, "scan --counts" in cli(command, out).err) == (3, True)


@pytest.mark.slow
def test_progress_goes_on_within_a_packed_file(model, tmp_path, monkeypatch):
    monkeypatch.setattr(counting, "BATCH_CHARACTERS", 2_000)
    lot = random.Random(4)
    texts = ["".join(lot.choices("abcdefgh ijklmnop", k=500)) for _ in range(1_000)]
    for name in ("a.jsonl.gz", "a.jsonl.zst"):
        file, seen = tmp_path / name, []
        pack = gzip.compress if name.endswith("gz") else made.zstd.compress
        file.write_bytes(pack(made.as_json(texts)))
        corpus(file, model=model, progress=lambda done, total, seen=seen: seen.append((done, total)))
        assert [done for done, _ in seen] == sorted(done for done, _ in seen)
        assert len({done for done, _ in seen}) > 3
        assert seen[-1] == (file.stat().st_size, file.stat().st_size)
