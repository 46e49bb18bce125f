"""Model folders: indexes, shards, configs, tokenizers, and embeddings that are missing or hold no numbers."""

import errno
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from darkvocab import EmbeddingMatrix
from darkvocab.errors import CorruptFile
from darkvocab.sources import open_source

ROWS = np.zeros((4, 2), np.float32)
INDEX = "model.safetensors.index.json"
TEXTS = ["plain", "~", "\x1b[2J", "\u202ebackwards"]


@pytest.fixture
def sharded(tmp_path, checkpoint):
    """A folder with an index, and a shard inside and one outside of it."""
    checkpoint(ROWS, name="outside.safetensors")
    folder = checkpoint(ROWS, name="model/model-1.safetensors").parent

    def write(index):
        text = index if isinstance(index, str) else json.dumps(index)
        (folder / INDEX).write_text(text, "utf-8")
        return folder

    return write


def placed(shard):
    return {"weight_map": {"embed_tokens.weight": shard}}


def test_shards_are_read_through_their_index(sharded):
    assert EmbeddingMatrix.open(sharded(placed("model-1.safetensors"))).n_tokens == 4


@pytest.mark.parametrize(
    "shard",
    [
        "../outside.safetensors",
        "../model/model-1.safetensors",
        "./model-1.safetensors",
        "x/../../outside.safetensors",
        "..\\outside.safetensors",
        "/etc/passwd",
        "C:outside.safetensors",
        "config.json",
        ".safetensors/../../outside.safetensors",
        "",
        "..",
        None,
        3,
        ["model-1.safetensors"],
    ],
)
def test_index_cannot_point_outside_its_folder(sharded, refuses, shard):
    refuses("scan", sharded(placed(shard)), code=4, says=[INDEX, "in the same folder"])


def test_index_cannot_point_outside_its_folder_by_a_full_path(sharded, refuses, tmp_path):
    refuses("scan", sharded(placed(str(tmp_path / "outside.safetensors"))), code=4, says=["in the same folder"])


def test_missing_shard_is_named(sharded, refuses):
    index = {"weight_map": {"embed_tokens.weight": "model-1.safetensors", "lm_head.weight": "model-2.safetensors"}}
    refuses("scan", sharded(index), code=3, says=["names 2 shards", "model-2.safetensors not there", "download it"])


def test_shard_without_the_tensor_that_the_index_places_there_is_refused(sharded, refuses):
    index = {"weight_map": {"lm_head.weight": "model-1.safetensors"}}
    refuses("scan", sharded(index), code=4, says=["'lm_head.weight' in model-1.safetensors", "does not hold it"])


@pytest.mark.parametrize(
    "index", ["", "{", "[]", "5", "{}", '{"weight_map": null}', '{"weight_map": ["a"]}', "[" * 100_000, "\ufeff{}"]
)
def test_index_that_is_none_is_refused(sharded, refuses, index):
    refuses("scan", sharded(index), code=4, says=[INDEX, "weight_map"])


def test_index_that_is_not_text_is_refused(sharded, refuses):
    folder = sharded({})
    (folder / INDEX).write_bytes(b"\xff\xfe")
    refuses("scan", folder, code=4, says=[INDEX])


@pytest.mark.parametrize("source", ["nothing", "nothing.safetensors", "nothing.npy", "no\x00thing"])
def test_missing_source_is_named(tmp_path, monkeypatch, refuses, source):
    monkeypatch.chdir(tmp_path)
    refuses("scan", source, code=3, says=["no file or folder", source[:2]])


def test_name_that_no_file_can_have_is_refused(refuses):
    refuses("scan", "a" * 300, code=3, says=["aaa", "too long"])


def test_folder_without_weights_says_what_it_has(tmp_path, refuses, checkpoint):
    refuses("scan", tmp_path, code=3, says=["none of model.safetensors, ", INDEX, "pytorch_model.bin.index.json"])
    checkpoint(ROWS, name="adapter.safetensors")
    refuses("scan", tmp_path, code=3, says=["it has adapter.safetensors: give one of these"])


@pytest.mark.parametrize("config", [b"{", b"[]", b"5", b"", b"\xff\xfe", b"[" * 100_000])
def test_corrupt_config_is_refused(model, refuses, config):
    folder = model(ROWS, TEXTS)
    (folder / "config.json").write_bytes(config)
    refuses("scan", folder, code=4, says=["config.json"])


@pytest.mark.parametrize("text", [b"", b"{", b"{}", b"[]", b"\xff\xfe", b'{"model": {}}'])
def test_corrupt_tokenizer_is_refused_and_can_be_done_without(model, cli, refuses, text):
    folder = model(ROWS, TEXTS)
    (folder / "tokenizer.json").write_bytes(text)
    refuses("scan", folder, code=4, says=["tokenizer.json", "--tokenizer none goes without"])
    assert cli("scan", folder, "--tokenizer", "none").code == 0


def test_missing_tokenizer_is_named(model, refuses):
    refuses("scan", model(ROWS, TEXTS), "--tokenizer", "nothing.json", code=3, says=["no tokenizer at 'nothing.json'"])


def test_tokenizer_that_makes_its_library_panic_is_refused(model):
    folder = model(ROWS, TEXTS)
    bpe = {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": [["a", "b"]], "continuing_subword_prefix": "##"}
    (folder / "tokenizer.json").write_text(json.dumps({"version": "1.0", "added_tokens": [], "model": bpe}))
    with pytest.raises(CorruptFile, match=r"tokenizer\.json"):
        EmbeddingMatrix.open(folder)


def test_text_of_an_id_with_many_texts_is_always_the_same(model):
    folder = model(ROWS, TEXTS)
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text("utf-8"))
    tokenizer["model"]["vocab"] = {"plain": 0, **{f"text {n}": 1 for n in range(50)}}
    path.write_text(json.dumps(tokenizer))
    assert len({EmbeddingMatrix.open(folder).texts[1] for _ in range(10)}) == 1


def test_source_without_an_embedding_lists_its_matrices(checkpoint, refuses):
    path = checkpoint(None, up=np.zeros((40, 30)), down=np.zeros((30, 40)), bias=np.zeros(40))
    result = refuses("scan", path, code=3, says=["--tensor NAME", "up  F32 40 x 30", "down  F32 30 x 40"])
    assert "bias" not in result.err


def test_source_without_matrices_says_so(checkpoint, refuses):
    refuses("scan", checkpoint(None, bias=np.zeros(4)), code=3, says=["no matrix", "1 tensors"])


def test_name_of_a_tensor_cannot_forge_a_line(checkpoint, cli):
    evil = "up\ndarkvocab: no problem found"
    result = cli("scan", checkpoint(None, **{evil: np.zeros((40, 30)), "down": np.zeros((30, 40))}))
    assert result.code == 3
    assert "\ndarkvocab: no problem found" not in result.err


def test_tensor_that_is_not_there_is_refused(checkpoint, refuses):
    path = checkpoint(ROWS)
    refuses("scan", path, "--tensor", "nothing", code=2, says=["no tensor 'nothing'", "embed_tokens.weight  F32 4 x 2"])


@pytest.mark.parametrize("tensor", ["bias", "cube", "ids"])
def test_tensor_that_is_no_matrix_of_floats_is_refused(safetensors_file, refuses, tensor):
    shapes = {"bias": ("F32", [2], 8), "cube": ("F32", [1, 1, 2], 8), "ids": ("I64", [1, 1], 8)}
    header, at = {}, 0
    for name, (dtype, shape, size) in shapes.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size]}
        at += size
    path = safetensors_file(header, bytes(at))
    refuses("scan", path, "--tensor", tensor, code=2, says=[f"tensor '{tensor}' is", "not a matrix"])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_rows_that_are_no_numbers_are_named(model, refuses, value):
    rows = np.arange(8, dtype=np.float32).reshape(4, 2)
    rows[1, 0] = rows[2, 1] = rows[3, 1] = value
    says = ["3 of 4 rows of embed_tokens.weight hold NaN or infinity", "1 '~'", r"2 '\x1b[2J'", r"3 '\u202ebackwards'"]
    result = refuses("scan", model(rows, TEXTS), code=4, says=says)
    assert "plain" not in result.err
    assert result.err.strip("\n").isprintable()


def test_rows_that_are_no_numbers_are_named_by_id_without_a_tokenizer(checkpoint, refuses):
    rows = np.full((20, 2), np.nan)
    refuses("scan", checkpoint(rows), code=4, says=["20 of 20 rows", "tokens 0, 1, 2, 3, 4, 5, 6, 7, ..."])


@pytest.mark.parametrize("command", [["centroid", "-o", "out.safetensors"], ["scan", "--csv", "out.csv"]])
def test_nothing_is_written_of_rows_that_are_no_numbers(tmp_path, monkeypatch, checkpoint, refuses, command):
    monkeypatch.chdir(tmp_path)
    refuses(*command, checkpoint([[1, np.nan], [1, 2], [1, 2]]), code=4, says=["tokens 0;"])
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


@pytest.mark.parametrize(("grid", "value"), [("float16", 65520), ("float8_e4m3fn", -465), ("bfloat16", 3.4e38)])
def test_rows_that_overflow_a_grid_are_named(model, refuses, grid, value):
    folder = model([[0, 0], [0, value], [0, 0], [0, 0]], TEXTS)
    refuses(
        "scan", folder, "--grid", grid, code=2, says=[f"1 of 4 rows of embed_tokens.weight overflow {grid}", "1 '~'"]
    )


def test_distance_beyond_the_largest_float32_is_left_out_of_json(checkpoint, cli):
    result = cli("scan", checkpoint([[3e38], [3e38], [-3e38], [-3e38]]), "--json")
    assert (result.code, result.err) == (0, "")
    assert json.loads(result.out)["l_inf"]["max"] is None


@pytest.mark.parametrize("name", ["rows.npy", "model.safetensors"])
def test_file_that_may_not_be_read_is_missing_and_not_corrupt(tmp_path, monkeypatch, refuses, name):
    def forbidden(path, *arguments, **options):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    (tmp_path / name).write_bytes(b"")
    monkeypatch.setattr(Path, "open", forbidden)
    refuses("scan", tmp_path / name, code=3, says=[f"{tmp_path / name}: Permission denied"])


def test_folder_that_holds_a_folder_for_a_file_is_refused(tmp_path, refuses):
    (tmp_path / "model.safetensors").mkdir()
    refuses("scan", tmp_path, code=3, says=["none of model.safetensors"])


def test_a_file_that_shrinks_to_nothing_is_refused(checkpoint):
    path = checkpoint(ROWS)
    copy = shutil.copy(path, path.with_name("copy.safetensors"))
    open_source(copy)
    path.with_name("copy.safetensors").write_bytes(b"")
    with pytest.raises(CorruptFile, match="0 bytes are too few"):
        open_source(copy)


# Indexes and files of torch's format ---------------------------------------------------------------------------------


def placed_in_bin(folder, index):
    (folder / "pytorch_model.bin.index.json").write_text(index if isinstance(index, str) else json.dumps(index))
    return folder


@pytest.mark.parametrize(
    "shard",
    ["../outside.bin", "/etc/passwd", "x/../../outside.bin", "..\\outside.bin", "model.safetensors", "a\0.bin", ""],
)
def test_index_of_torch_files_cannot_point_outside_its_folder(tmp_path, refuses, shard):
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "outside.bin").write_bytes(b"")
    refuses("scan", placed_in_bin(folder, placed(shard)), code=4, says=["a .bin file in the same folder"])


def test_missing_shard_of_torch_files_is_named(tmp_path, refuses):
    index = placed("pytorch_model-00001-of-00002.bin")
    refuses("scan", placed_in_bin(tmp_path, index), code=3, says=["pytorch_model-00001-of-00002.bin not there"])


@pytest.mark.parametrize("where", ["pytorch_model.bin.index.json", INDEX])
def test_index_that_names_a_tensor_twice_is_refused(tmp_path, refuses, where):
    (tmp_path / where).write_text('{"weight_map": {"a": "1.bin", "a": "2.bin"}}')
    refuses("scan", tmp_path, code=4, says=[where, "names 'a' twice"])


def test_index_that_is_itself_a_shard_is_refused(tmp_path, refuses):
    index = placed("pytorch_model.bin.index.json")
    refuses("scan", placed_in_bin(tmp_path, index), code=4, says=["a .bin file in the same folder"])


@pytest.mark.parametrize(
    "name", ["model.bin.index.json", "a.gguf.index.json", ".index.json", "index.json", "a.index.json"]
)
def test_any_index_is_read_or_refused_in_a_sentence(tmp_path, refuses, name):
    (tmp_path / name).write_text("{}")
    refuses("scan", tmp_path / name, code=4 if ".bin" in name else 2, says=[name])


def test_folder_with_other_weights_says_which(tmp_path, refuses):
    for name in ("adapter.pt", "model-Q4_K_M.gguf", "rows.npz", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    refuses("scan", tmp_path, code=3, says=["it has adapter.pt, model-Q4_K_M.gguf, rows.npz: give one of these"])


# Histories ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("recorded", "says"),
    [
        ("5", "says that 5 rows are recorded, has room for 2"),
        ("0", "no row is recorded yet"),
        ("-1", "recorded must be a count"),
        ("9" * 30, "recorded must be a count"),
        ("all", "recorded must be a count"),
    ],
)
def test_history_whose_header_contradicts_it_is_refused(tmp_path, refuses, recorded, says):
    path = tmp_path / "embedding_evolution.safetensors"
    save_file({"embedding_history": np.zeros((2, 3, 4), np.float32)}, path, metadata={"recorded": recorded})
    refuses("scan", tmp_path, code=4, says=[says])


@pytest.mark.parametrize("row", ["2", "-1", "1.0", "", "x", "9" * 17, "9" * 40, "1][0"])
def test_row_that_is_none_is_refused(tmp_path, refuses, row):
    save_file({"embedding_history": np.zeros((2, 3, 4), np.float32)}, tmp_path / "a.safetensors")
    refuses(
        "scan",
        tmp_path / "a.safetensors",
        "--tensor",
        f"embedding_history[{row}]",
        code=2,
        says=["row" if row in ("2", "9" * 17) else "no tensor"],
    )
