"""Checkpoints as people meet them: scan, check, repair and diff find the embedding, or say what to give instead."""

import json

import cases
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from darkvocab import EmbeddingMatrix, check, diff, repair, scan, series
from darkvocab.checkpoints.plan import plan
from darkvocab.errors import CorruptFile, InvalidInput, NoEmbedding
from darkvocab.reports import atlas, findings

WEIGHT, N, DIM = cases.WEIGHT, cases.N, cases.DIM
PLAIN = {  # case: tensor, its output, black holes' populations
    "decayed": ("backbone.embeddings.weight", "lm_head.weight", []),
    "decayed_tied": (WEIGHT, None, []),
    "damaged": ("backbone.embeddings.weight", "lm_head.weight", [30]),
    "copied": (WEIGHT, "lm_head.weight", [2, 2, 2, 2]),
    "padded": (WEIGHT, "lm_head.weight", [2, 2, 2, 2]),
    "modules_to_save": (f"{cases.BASE}{WEIGHT}", f"{cases.BASE}lm_head.weight", []),
    "whole_state": (
        f"{cases.BASE}model.embed_tokens.modules_to_save.default.weight",
        f"{cases.BASE}lm_head.modules_to_save.default.weight",
        [],
    ),
    "per_layer": ("model.language_model.embed_tokens.weight", None, []),
    "rwkv": ("emb.weight", "head.weight", []),
    "moshi": ("text_emb.weight", None, []),
    "bark": ("input_embeds_layer.weight", "lm_head.weight", []),
    "untied_without_output": (WEIGHT, None, []),
    "tied_but_differs": (WEIGHT, "lm_head.weight", []),
}
PACKED = {  # case: tensor, type it is stored in, by what it is scaled, black holes
    "compressed": (f"{WEIGHT}_packed", "packed-int4-g64", f"{WEIGHT}_scale", [[3, 7, 9]]),
    "mlx": (
        WEIGHT,
        "mlx-4bit-g64",
        "model.embed_tokens.scales and model.embed_tokens.biases",
        [[3, 7, 9], [20, 21]],
    ),
    "fp8": (WEIGHT, "float8_e4m3fn x scale", f"{WEIGHT}_scale", [[3, 7]]),
    "int8": (WEIGHT, "int8 x scale", "model.embed_tokens.SCB", []),
}
REFUSED = {  # case: error, and what it says
    "compressed_with_zeros": (InvalidInput, ["weight_packed is packed, I32", "before it was quantised"]),
    "four_bits": (InvalidInput, [f"{WEIGHT} is packed, U8", "absmax", "before it was quantised"]),
    "lora": (NoEmbedding, ["is a LoRA adapter", "factors", "merge_and_unload", "org/base"]),
    "lora_elsewhere": (NoEmbedding, ["is a LoRA adapter of 2 modules, none of them the embedding", "of org/base"]),
    "delta": (NoEmbedding, ["trainable_tokens_delta holds changes of 5 rows", "merge_and_unload", "org/base"]),
    "codebooks": (NoEmbedding, [f"--tensor model.decoder.embed_tokens.{n}.weight  # BF16 257 x 64" for n in range(4)]),
    "nonfinite": (CorruptFile, ["tokens 7, 9", "--skip-nonfinite"]),
}


@pytest.fixture(scope="module", params=cases.CASES)
def case(request, tmp_path_factory):
    """A case by name, and its folder."""
    return request.param, cases.saved(tmp_path_factory.mktemp("cases") / request.param, request.param)


def test_every_case_has_its_answer():
    assert {*PLAIN, *PACKED, *REFUSED} == {*cases.CASES}


def test_a_case_is_scanned_or_refused_with_what_to_give_instead(case):
    name, folder = case
    if name in REFUSED:
        error, says = REFUSED[name]
        for command in (scan, lambda path: diff(path, path), lambda path: repair(path, folder.parent / "out")):
            with pytest.raises(error) as refused:
                command(folder)
            assert all(words in str(refused.value) for words in says), refused.value
        assert not (folder.parent / "out").exists()
        return
    scanned = scan(folder)
    assert (scanned.matrix.n_tokens, scanned.matrix.hidden_dim) == (N, DIM)
    tensor = PLAIN[name][0] if name in PLAIN else PACKED[name][0]
    assert scanned.matrix.tensor == tensor
    assert not diff(folder, folder).differs
    check(scanned).to_json()
    if name in PLAIN:
        assert (scanned.matrix.output_tensor, list(scanned.census.populations)) == PLAIN[name][1:]
        assert (scanned.matrix.chosen, scanned.matrix.stored_grid) == ("by name", "bfloat16")
    else:
        _, stored, scales, holes = PACKED[name]
        assert (scanned.matrix.grid, scanned.matrix.stored_grid) == ("float32", stored)
        assert scanned.matrix.chosen == f"by name; scaled by {scales}"
        assert [list(hole.token_ids) for hole in scanned.black_holes] == holes
        with pytest.raises(InvalidInput, match=f"are scaled by {scales}: repair writes rows of plain numbers"):
            repair(folder, folder.parent / "out", tokens="3", dry_run=True)


def test_a_case_is_the_same_by_range_from_the_hub(case, hub):
    name, folder = case
    hub.add("org/model", cases.files(name))
    if name in REFUSED:
        error, says = REFUSED[name]
        with pytest.raises(error) as refused:
            scan("org/model")
        assert all(words in str(refused.value) for words in says if "--tensor" not in words)
        return
    outside, inside = scan("org/model"), scan(folder)
    assert {**outside.to_json(), "source": None} == {**inside.to_json(), "source": None}
    assert outside.tokens.equals(inside.tokens)


def values_of(name):
    """Rows of a packed case, plainly."""
    tensors = cases.CASES[name](np.random.default_rng(16))[0]
    if name == "fp8":
        return tensors[WEIGHT].astype(np.float32) * tensors[f"{WEIGHT}_scale"]
    if name == "int8":
        return tensors[WEIGHT].astype(np.float32) * (tensors["model.embed_tokens.SCB"] / np.float32(127))[:, None]
    mlx = name == "mlx"
    words = tensors[WEIGHT if mlx else f"{WEIGHT}_packed"].view(np.uint32)
    codes = ((words[:, :, None] >> np.arange(0, 32, 4, dtype=np.uint32)) & 15).reshape(N, DIM).astype(np.float32)
    scales = tensors["model.embed_tokens.scales" if mlx else f"{WEIGHT}_scale"].astype(np.float32)
    if not mlx:
        return ((codes - 8) * scales).astype(cases.BF16).astype(np.float32)
    product = (codes * scales).astype(cases.BF16).astype(np.float32)
    return (product + tensors["model.embed_tokens.biases"].astype(np.float32)).astype(cases.BF16).astype(np.float32)


@pytest.mark.parametrize("name", PACKED)
def test_norms_and_rows_of_a_packed_case_are_those_of_its_values(name, tmp_path):
    folder = cases.saved(tmp_path, name)
    rows = values_of(name)
    matrix = EmbeddingMatrix.open(folder)
    assert np.array_equal(matrix.rows(slice(None)), rows)
    assert np.array_equal(matrix.rows([9, 3, 599]), rows[[9, 3, 599]])
    norms = np.linalg.norm(rows.astype(np.float64), axis=1)
    assert np.allclose(scan(folder).tokens["norm"].to_numpy(), norms, rtol=1e-12)


@pytest.mark.parametrize("name", ["per_layer", "moshi"])
def test_other_rows_of_tokens_are_named_and_can_be_asked_for(name, tmp_path, cli):
    folder = cases.saved(tmp_path, name)
    other = {"per_layer": "model.language_model.embed_tokens_per_layer.weight", "moshi": "emb.1.weight"}[name]
    result = cli("scan", folder)
    assert f"{other} (" in result.out
    assert "--tensor takes one" in result.out
    assert scan(folder, tensor=other).matrix.tensor == other


def test_the_command_for_a_codebook_is_one_that_works(tmp_path, cli):
    refused = cli("scan", cases.saved(tmp_path, "codebooks"))
    line = refused.err.splitlines()[3]
    result = cli(*line.split("#")[0].split()[1:])
    assert (refused.code, result.code) == (3, 0)
    assert "model.decoder.embed_tokens.2.weight" in result.out


def test_no_share_of_nothing_is_given_and_the_padding_of_the_output_is_said(tmp_path, cli):
    folder = cases.saved(tmp_path, "padded")
    scanned = scan(folder)
    assert (scanned.indicators.n_dark, scanned.indicators.expected_false_positives) == (0, None)
    assert scanned.indicators.threshold is None
    printed = cli("scan", folder).out + cli("check", folder, "--model-card", "-").out + cli("check", folder).out
    assert "96 rows beyond the 600 of the input, which are no tokens of it" in printed
    assert "none of 600 is like the " in printed
    for said in (printed, atlas.page(scanned).decode()):
        assert "wrongly" not in said
        assert "expected to be" not in said


def test_rows_that_are_no_numbers_are_left_out_where_that_is_asked(tmp_path, cli):
    folder = cases.saved(tmp_path, "nonfinite")
    scanned = scan(folder, skip_nonfinite=True)
    assert (scanned.matrix.n_tokens, scanned.matrix.skipped) == (N - 2, (7, 9))
    assert scanned.tokens["id"].to_list() == [token for token in range(N) if token not in (7, 9)]
    assert [hole.token_ids for hole in scanned.black_holes] == [(30, 40, 41)]
    assert scanned.tokens.filter(id=30)["population"].to_list() == [3]
    assert scanned.census.n_unique == N - 4
    left_out = "2 tokens whose rows hold NaN or infinity (7, 9)"
    printed = {form: cli("scan", folder, "--skip-nonfinite", *form).out for form in ((), ("--json",))}
    assert f"598, without {left_out}" in printed[()]
    assert json.loads(printed["--json",])["skipped"] == [7, 9]
    page = atlas.page(scanned).decode()
    assert page.count(left_out) >= 2
    verdict = check(scanned).to_json()
    assert f"without {left_out}" in cli("check", folder, "--skip-nonfinite").out.splitlines()[-1]
    card = findings.model_card(verdict)
    assert f"- Left out: {left_out}" in card
    assert "--skip-nonfinite" in card.splitlines()[-2]
    assert left_out in findings.junit(verdict).decode()
    assert json.loads(findings.sarif(verdict))["runs"][0]["properties"] == {"skipped": [7, 9]}


def test_a_diff_leaves_out_tokens_that_are_no_numbers_in_either(tmp_path, cli):
    a, b = cases.saved(tmp_path / "a", "nonfinite"), cases.saved(tmp_path / "b", "decayed_tied")
    part = diff(a, b, skip_nonfinite=True).parts[0]
    assert (part.n_common, part.skipped) == (N - 2, [7, 9])
    frame = part.frame()
    assert not frame.filter(frame["token_id"].is_in([7, 9])).height
    old, new = (load_file(folder / "model.safetensors")[WEIGHT].astype(np.float64) for folder in (a, b))
    far = np.linalg.norm(new - old, axis=1)
    far[[7, 9]] = 0
    assert part.to_json()["movers"][0]["token_id"] == far.argmax()
    (hole,) = part.to_json()["black_holes"]
    assert (hole["kind"], hole["left"]) == ("dissolved", [30, 40, 41])
    assert "2 tokens whose rows hold NaN or infinity (7, 9)" in cli("diff", a, b, "--skip-nonfinite").out


def test_a_matrix_without_numbers_in_any_row_is_refused_even_so(tmp_path):
    save_file({WEIGHT: np.full((9, 4), np.nan, np.float32)}, tmp_path / "model.safetensors")
    with pytest.raises(InvalidInput, match=r"all 9 rows of .* hold NaN or infinity: none is left"):
        scan(tmp_path, skip_nonfinite=True)


def test_the_output_decides_too_which_tokens_are_left_out(tmp_path):
    rng = np.random.default_rng(16)
    head = cases.rows(rng, N + 5)
    head[[3, N + 2]] = np.inf
    folder = cases.saved(tmp_path, "rwkv")
    save_file({"emb.weight": cases.rows(rng), "head.weight": head}, folder / "model.safetensors")
    scanned = scan(folder, skip_nonfinite=True)
    assert scanned.matrix.skipped == (3,)
    assert "has 4 rows beyond the 599 of the input" in scanned.matrix.notes[0]


def test_config_and_tensors_that_disagree_about_tying_are_facts_of_a_scan(tmp_path, cli):
    differs = scan(cases.saved(tmp_path / "a", "tied_but_differs")).matrix.tying
    assert (differs.said, differs.tied, differs.n_differ, differs.lacks_output) == (True, False, 40, False)
    assert "40 of 600 rows of lm_head.weight are not those of model.embed_tokens.weight" in differs.sentence
    lacks = scan(cases.saved(tmp_path / "b", "untied_without_output")).matrix.tying
    assert (lacks.said, lacks.tied, lacks.n_differ, lacks.lacks_output) == (False, False, None, True)
    assert lacks.sentence in " ".join(cli("scan", tmp_path / "b").out.split())
    for name in ("copied", "decayed_tied", "rwkv", "modules_to_save"):
        assert scan(cases.saved(tmp_path / name, name)).matrix.tying.sentence is None
    at_odds = {"tie_word_embeddings": False, "text_config": {"vocab_size": N, "tie_word_embeddings": True}}
    (tmp_path / "b" / "config.json").write_text(json.dumps(at_odds))
    unclear = scan(tmp_path / "b").matrix.tying
    assert (unclear.said, unclear.lacks_output, unclear.sentence) == (None, False, None)


def test_the_plan_names_the_tensors_of_scales(tmp_path):
    planned = plan(cases.saved(tmp_path, "mlx"), checksum=False)
    assert [(read["purpose"], read["bytes"]) for read in planned["reads"]] == [
        ("embedding", N * DIM // 2),
        ("scales", 2 * N),
        ("biases", 2 * N),
    ]


def test_an_adapter_whose_factors_change_the_embedding_says_that_they_are_not_applied(tmp_path):
    rng = np.random.default_rng(16)
    module = f"{cases.BASE}model.embed_tokens"
    factor = {f"{module}.lora_embedding_A.default": cases.rows(rng, 8, N)}
    save_file({f"{module}.base_layer.weight": cases.rows(rng), **factor}, tmp_path / "model.safetensors")
    scanned = scan(tmp_path)
    assert scanned.matrix.tensor == f"{module}.base_layer.weight"
    assert "lora_embedding_A.default changes these rows, and is not applied" in scanned.matrix.notes[0]


def test_checkpoints_with_equal_words_and_other_scales_are_not_identical(tmp_path):
    for name, scale in (("a", 0.02), ("b", 0.02), ("c", 0.03)):
        folder = cases.saved(tmp_path / name, "fp8")
        tensors = cases.fp8(np.random.default_rng(16))[0]
        tensors[f"{WEIGHT}_scale"][:] = scale
        save_file(tensors, folder / "model.safetensors")
    measured = series(tmp_path)
    assert measured.checkpoints["identical_to"].to_list() == [None, "a", None]
    assert measured.checkpoints["n_moved"].to_list() == [None, 0, N]


def test_a_packed_tensor_that_is_asked_for_by_name_is_refused_by_name(tmp_path):
    for name, tensor in (("four_bits", WEIGHT), ("compressed_with_zeros", f"{WEIGHT}_packed")):
        with pytest.raises(InvalidInput, match=r"is packed, .* before it was quantised"):
            scan(cases.saved(tmp_path / name, name), tensor=tensor)
