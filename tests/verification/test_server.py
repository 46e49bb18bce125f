"""Models behind an endpoint: exact probabilities where a server gives them, bounds where it lists few, and its faults.

The servers are stand-ins with a model whose probabilities are known; `test_llama_cpp.py` asks a real one.
"""

import json
import math
import pickle

import endpoints
import numpy as np
import polars as pl
import pytest
from bytewise import N_TOKENS, UNTRAINED, source, tokenizer

from darkvocab import check, scan, verify
from darkvocab.errors import (
    AccessRefused,
    DarkvocabError,
    InvalidInput,
    Missing,
    MissingExtra,
    MissingFile,
    Unreachable,
)
from darkvocab.sources.hub import requests
from darkvocab.verification import connection
from darkvocab.verification.connection import Connection
from darkvocab.verification.frames import read_frames
from darkvocab.verification.run import Verify
from darkvocab.verification.server import open_server

BYTE = 160  # 0xE4, no whole character
ASKED = [40, 65, BYTE, *range(280, 284), *UNTRAINED]
FEW = {"tokens": ASKED, "controls": 0, "missed": 0}
SECRET = "sk-darkvocab-0123456789"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return source(tmp_path_factory.mktemp("model") / "small")


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(requests, "PAUSES", (0.0,) * len(requests.PAUSES))


@pytest.fixture
def endpoint():
    with endpoints.Endpoint().running() as served:
        yield served


def url_of(served):
    return served.url + "/v1" * served.kind.endswith("/v1")


def truth(frame, token):
    """Probability and rank of a token at each place of its greedy answer."""
    text = frame.text + frame.answer
    ids = [
        one for n, part in enumerate(text.split("{token}")) for one in [token] * (n > 0) + tokenizer().encode(part).ids
    ]
    places = []
    for _ in range(endpoints.PLACES):
        every = endpoints.logprobs(ids)
        places.append((math.exp(every[token]), 1 + int((every > every[token]).sum())))
        ids.append(int(np.argmax(every)))
    return places


@pytest.mark.slow
@pytest.mark.parametrize("kind", endpoints.KINDS)
def test_every_kind_of_server_gives_the_probabilities_or_bounds_of_them(folder, kind):
    with endpoints.Endpoint(kind).running() as served:
        settings = Verify(source=str(folder), endpoint=url_of(served), **FEW)
        records = settings.run()
    by_text = kind in ("Ollama", "OpenAI-compatible")
    assert settings.parameters["server"]["by_text"] == by_text
    texts, _ = read_frames()
    for text in texts:
        for token in ASKED:
            part = records.filter(pl.col("frame") == text.name, pl.col("token") == token)
            p = part["p"].to_list()
            if by_text and token == BYTE:
                assert p == [None] * endpoints.PLACES
                continue
            said = zip(p, part["bound"], part["rank"], part["answer"] == token, truth(text, token), strict=True)
            for given, is_bound, rank, is_right, (true, true_rank) in said:
                assert given >= true - 1e-12
                assert is_bound or given == pytest.approx(true, rel=1e-9)
                assert rank in (None, true_rank)
                assert is_right == (true > 0.5)
    bounds = records.drop_nulls("p")["bound"]
    assert bounds.any() == (kind != "vLLM")
    assert records.filter("bound")["rank"].null_count() == bounds.sum()


@pytest.mark.parametrize(
    ("kind", "most_listed"), [("vLLM", 1), ("vLLM old", 20), ("OpenAI-compatible", 20), ("Ollama", 20)]
)
def test_what_a_server_can_do_is_asked_first_and_recorded(folder, kind, most_listed, tmp_path):
    with endpoints.Endpoint(kind).running() as served:
        verify(folder, tmp_path / "run", endpoint=url_of(served), **FEW)
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    facts = manifest["parameters"]["server"]
    assert facts["most_listed"] == most_listed
    assert facts["is_exact"] == (kind == "vLLM")
    assert facts["kind"] == kind.removesuffix(" old")
    assert facts["model"] == "small"
    assert facts["endpoint"] == served.url
    assert "httpx2" in manifest["packages"]
    assert "torch" not in manifest["packages"]
    assert f" --endpoint {served.url} " in manifest["command"]


def test_a_bound_below_the_limit_verifies_a_token(folder, monkeypatch):
    monkeypatch.setattr(endpoints, "logprobs", lambda ids: -math.log(N_TOKENS) - 1e-6 * np.arange(N_TOKENS))
    with endpoints.Endpoint("vLLM old").running() as served:
        verdict = verify(folder, endpoint=served.url, tokens=[40, 300], controls=0, missed=0)
    assert verdict.tokens["bound"].all()
    assert verdict.tokens["verified"].all()  # one of 320 that are as likely: below 0.01
    assert verdict.tokens["land"].to_list() == [None, None]  # below 0.01, and below 0.001 or not


@pytest.mark.slow
def test_undecided_tokens_and_those_not_asked_are_counted_in_every_form(folder, cli, tmp_path):
    with endpoints.Endpoint("Ollama").running() as served:
        served.change = lambda answer: {**answer, "logprobs": answer["logprobs"][:2]}  # the last place is left out
        out = tmp_path / "run"
        asked = ("--tokens", f"{BYTE},40,300", "--controls", 0, "--missed", 0)
        result = cli("verify", folder, "--endpoint", served.url, *asked, "--out", out, "--json")
        assert result.code == 0
        said = json.loads(result.out)
        assert (said["n_undecided"], said["n_not_asked"], said["n_verified"]) == (1, 1, 0)
        by_token = {one["token"]: one for one in said["tokens"]}
        assert by_token[40]["verified"] is False  # it came: whatever the last place was
        assert by_token[300]["verified"] is None
        assert by_token[300]["land"] is None
        assert by_token[BYTE]["p_max"] is None
        assert by_token[BYTE]["glitch"] is None
        assert cli("report", out).code == 0
        page = (out / "report.html").read_text()
        assert "1 are undecided" in page
        assert "1 were not asked for" in page
    scanned = scan(folder, verified=out)
    tokens = scanned.tokens.filter(pl.col("id").is_in([40, BYTE, 300]))
    assert tokens["verified"].to_list() == [False, None, None]
    assert scanned.to_json()["verified"]["n_undecided"] == 1
    assert next(one for one in check(scanned).to_json()["rules"] if one["id"] == "DV016")["measured"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["llama.cpp", "llama.cpp /v1"])
def test_places_that_llama_cpp_leaves_out_are_asked_for_one_by_one(folder, kind):
    eos = (0,)  # what comes instead of a token that the model cannot say
    with endpoints.Endpoint(kind).running() as plain, endpoints.Endpoint(kind, eos=eos).running() as ending:
        one, other = (verify(folder, endpoint=url_of(each), **FEW).tokens for each in (plain, ending))
        assert any("logit_bias" in body for body in ending.prompts)
        assert any("logit_bias" in body for body in plain.prompts)  # of the byte that is no whole character
    assert one.equals(other)
    assert one.filter(token=BYTE)["verified"].to_list() == [False]


def test_a_server_that_ends_a_text_says_nothing_of_the_places_after_it(folder):
    with endpoints.Endpoint("OpenAI-compatible", eos=(0,)).running() as served:
        tokens = verify(folder, endpoint=served.url, **FEW).tokens
    assert tokens.filter(token=300)["verified"].to_list() == [None]
    assert tokens.filter(token=280)["verified"].to_list() == [False]


def test_a_listed_text_that_is_no_token_s_may_be_the_token_that_is_asked_for(folder):
    with endpoints.Endpoint("Ollama").running() as served:
        text = served.text(40)

        def unnamed(answer):  # as special tokens are, which have no text
            for place in answer["logprobs"]:
                for one in (place, *place["top_logprobs"]):
                    one["token"] = "" if one["token"] == text else one["token"]
            return answer

        served.change = unnamed
        tokens = verify(folder, endpoint=served.url, tokens=[40, 41], controls=0, missed=0).tokens
    assert tokens["bound"].to_list() == [True, False]
    assert tokens["p_max"][0] > 0.9
    assert tokens["verified"].to_list() == [None, False]


@pytest.mark.slow
def test_neither_torch_nor_transformers_is_needed_but_for_a_template_that_the_server_has_not(folder, monkeypatch):
    for name in ("torch", "transformers"):
        monkeypatch.setitem(__import__("sys").modules, name, None)
    with endpoints.Endpoint().running() as served:
        verify(folder, endpoint=served.url, chat=True, **FEW)
        ids = served.prompts[-1]["prompt"]
        assert tokenizer().decode(ids).startswith("<user>")
    with endpoints.Endpoint("vLLM").running() as served, pytest.raises(MissingExtra, match="transformers"):
        verify(folder, endpoint=served.url, chat=True, **FEW)


@pytest.mark.slow
def test_the_key_is_in_the_header_of_each_request_and_nowhere_else(folder, cli, tmp_path, monkeypatch):
    monkeypatch.setenv("DARK_KEY", SECRET)
    arguments = ["verify", folder, "--tokens", "5,300", "--controls", 0, "--missed", 0, "--api-key-env", "DARK_KEY"]
    out = tmp_path / "run"
    with endpoints.Endpoint(key=SECRET).running() as served:
        arguments += ["--endpoint", served.url]
        result = cli(*arguments, "--out", out)
        assert result.code == 0
        assert served.keys == {f"Bearer {SECRET}"}
        served.change = lambda answer: {"error": SECRET}
        lying = cli(*arguments)
        served.refusal = f"cannot, {SECRET}"
        served.statuses.extend([(400, {})] * 9)
        unable = cli(*arguments)
        served.key = "another"
        refused = cli(*arguments)
    assert (lying.code, unable.code, refused.code) == (3, 2, 3)
    assert "cannot, ***" in unable.err
    assert "does not accept the key" in refused.err
    written = b"".join(path.read_bytes() for path in out.rglob("*") if path.is_file())
    for text in (result, lying, unable, refused):
        assert SECRET not in text.out + text.err
    assert SECRET.encode() not in written
    assert b"--api-key-env DARK_KEY" in written
    assert SECRET not in repr(pickle.dumps(Verify(source="x", endpoint="http://x", api_key_env="DARK_KEY")))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"endpoint": "http://me:pw@localhost"}, "no user, password or query"),
        ({"endpoint": "http://localhost/?key=1"}, "no user, password or query"),
        ({"endpoint": "localhost:8080"}, "takes the URL of a server"),
        ({"endpoint": "http://"}, "takes the URL of a server"),
        ({"endpoint": "http://a:b"}, "takes the URL of a server"),
        ({"endpoint": "http://localhost", "api_key_env": "NO_SUCH"}, "variable NO_SUCH is not set"),
        ({"endpoint": "http://localhost", "api_key_env": "ODD_KEY"}, "ODD_KEY is not set, or holds no key"),
        ({"endpoint": "http://localhost", "model": print}, "a model in memory is asked without an endpoint"),
        ({"model": "small"}, "give its URL by --endpoint"),
        ({"api_key_env": "NAME"}, "give its URL by --endpoint"),
    ],
)
def test_what_is_no_endpoint_is_refused(folder, given, said, monkeypatch):
    monkeypatch.setenv("ODD_KEY", "pässword")
    with pytest.raises(InvalidInput, match=said) as raised:
        verify(folder, **given, **FEW)
    assert "pw" not in str(raised.value)
    assert "pässword" not in str(raised.value)


def lists(value, places=0):
    """Change an answer of llama.cpp: the log-probability of its first place is another."""

    def change(answer):
        answer["completion_probabilities"][places]["top_logprobs"][1]["logprob"] = value
        return answer

    return change


def other(**entries):
    return lambda answer: {**answer, **entries}


def second_place_is(token):
    def change(answer):
        answer["completion_probabilities"][0]["top_logprobs"][1]["id"] = token
        return answer

    return change


def colder(answer):
    first = answer["completion_probabilities"][0]
    return {**answer, "completion_probabilities": [{**first, **first["top_logprobs"][1]}] * 3}


@pytest.mark.parametrize(
    ("change", "said"),
    {
        "NaN": (lists(math.nan), "NaN, or more than 1 in all"),
        "above 0": (lists(0.5), "NaN, or more than 1 in all"),
        "too much": (lists(-0.0), "NaN, or more than 1 in all"),
        "no number": (lists("much"), "gives no log-probabilities"),
        "null": (lists(None), "gives no log-probabilities"),
        "no list": (other(completion_probabilities=3), "gives no log-probabilities"),
        "empty": (lambda answer: {}, "lists no log-probabilities"),
        "a list": (lambda answer: [], "gives no log-probabilities"),
        "beyond": (second_place_is(N_TOKENS), "tokenizer of another vocabulary"),
        "below": (second_place_is(-1), "tokenizer of another vocabulary"),
        "text": (second_place_is("a"), "names tokens by their text alone"),
        "sampled": (colder, "ignores the temperature"),
    }.values(),
)
def test_a_server_that_lies_is_refused(folder, endpoint, change, said):
    endpoint.change = change
    with pytest.raises((Unreachable, InvalidInput), match=said):
        verify(folder, endpoint=endpoint.url, **FEW)


def without_others(answer):
    answer["choices"][0]["logprobs"] = None
    return answer


def test_a_server_without_log_probabilities_is_refused(folder):
    with endpoints.Endpoint("OpenAI-compatible").running() as served:
        served.change = without_others  # as `transformers serve` answers
        with pytest.raises(Unreachable, match="gives no log-probabilities"):
            verify(folder, endpoint=served.url, **FEW)


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (lambda content: content[: len(content) // 2], "failed 6 times in a row"),
        (lambda content: b"{" * len(content), "it answers something else"),
        (lambda content: b"[" * 100_000, "it answers something else"),
    ],
)
def test_answers_that_are_cut_or_no_json_are_refused(folder, endpoint, raw, said):
    endpoint.raw = raw
    with pytest.raises(Unreachable, match=said):
        verify(folder, endpoint=endpoint.url, **FEW)


def test_a_server_that_is_not_there_is_unreachable(folder, cli):
    result = cli("verify", folder, "--endpoint", "http://127.0.0.1:9", "--controls", 0, "--missed", 0)
    assert result.code == 3
    assert "no connection" in result.err


@pytest.mark.slow
def test_what_a_server_asks_for_or_lacks_is_said(folder):
    with endpoints.Endpoint(names=("one", "two")).running() as served:
        with pytest.raises(InvalidInput, match=r"has several models \(one, two\): name one by --model"):
            verify(folder, endpoint=served.url, **FEW)
        with pytest.raises(MissingFile, match="answers 404 of the model 'three': model 'three' not found"):
            verify(folder, endpoint=served.url, model="three", **FEW)
        verify(folder, endpoint=served.url, model="two", **FEW)
        assert served.prompts[-1]["model"] == "two"
    with endpoints.Endpoint(key="k").running() as served, pytest.raises(AccessRefused, match="asks for a key"):
        verify(folder, endpoint=served.url, **FEW)
    with endpoints.Endpoint("Ollama").running() as served, pytest.raises(InvalidInput, match="puts a template around"):
        verify(folder, endpoint=f"{served.url}/v1", **FEW)


def test_a_server_with_another_vocabulary_or_a_short_context_is_refused(folder, endpoint, monkeypatch):
    endpoint.n_vocab = N_TOKENS + 1
    with pytest.raises(InvalidInput, match="tokenizer of another vocabulary: 321 tokens, the source has 320"):
        verify(folder, endpoint=endpoint.url, **FEW)
    endpoint.n_vocab = N_TOKENS
    ours = endpoint.tokenizer
    endpoint.tokenizer = type("Reversed", (), {"encode": lambda _, text: ours.encode(text[::-1])})()
    with pytest.raises(InvalidInput, match="it makes other ids of the frame device"):
        verify(folder, endpoint=endpoint.url, **FEW)
    endpoint.tokenizer = ours
    get = endpoint.get
    short = {"default_generation_settings": {"n_ctx": 50}, "total_slots": 1}
    monkeypatch.setattr(endpoint, "get", lambda path: short if path == "/props" else get(path))
    with pytest.raises(InvalidInput, match=r"the frame device has \d+ tokens, the model's context 50"):
        verify(folder, endpoint=endpoint.url, **FEW)


@pytest.mark.slow
@pytest.mark.parametrize("status", [429, 500, 503])
def test_failures_that_pass_do_not_change_an_answer(folder, endpoint, status):
    calm = verify(folder, endpoint=endpoint.url, **FEW).tokens
    settings = Verify(source=str(folder), endpoint=endpoint.url, **FEW)
    model, _ = settings.asking
    assert model.connection.at_once == 4  # as many as it has slots
    endpoint.statuses.extend([(status, {}), (status, {"Retry-After": "0"})])
    settings.run()
    assert model.connection.at_once == (4 if status == 500 else 1)
    assert calm.equals(verify(folder, endpoint=endpoint.url, **FEW).tokens)


def test_a_server_that_goes_on_to_fail_or_asks_for_a_long_wait_is_given_up(folder, endpoint):
    settings = Verify(source=str(folder), endpoint=endpoint.url, **FEW)
    assert settings.asking
    endpoint.statuses.extend([(429, {"Retry-After": "3600"})] * 100)
    with pytest.raises(Unreachable, match="asks to wait for 3,600 s"):
        settings.run()
    endpoint.statuses.clear()
    settings = Verify(source=str(folder), endpoint=endpoint.url, **FEW)
    assert settings.asking
    endpoint.statuses.extend([(500, {})] * 1000)
    with pytest.raises(Unreachable, match="failed 6 times in a row, the last time: status 500"):
        settings.run()


@pytest.mark.slow
def test_connections_are_kept_and_requests_of_a_frame_stand_side_by_side(folder, endpoint):
    verify(folder, endpoint=endpoint.url, **FEW)
    assert endpoint.n_connections <= 5
    assert 2 <= endpoint.most_open <= 4
    lengths = [len(body["prompt"]) for body in endpoint.prompts[1:] if "logit_bias" not in body]
    assert lengths == sorted(lengths, key=lengths.index)  # a frame after the other


def test_requests_at_once_are_doubled_as_long_as_that_is_faster():
    asked = Connection("http://localhost")
    for rate in (10, 19, 20):
        asked.measured("device", rate)
        asked.measured("list", 1)  # of another frame: not compared
    assert asked.is_settled
    assert asked.at_once == 2 * connection.FIRST_AT_ONCE
    fast = Connection("http://localhost")
    for number in range(12):
        fast.measured("device", 2.0**number)
    assert fast.at_once == connection.MOST_AT_ONCE


@pytest.mark.slow
def test_an_interrupted_run_goes_on_to_the_same_bytes(folder, endpoint, tmp_path, monkeypatch):
    monkeypatch.setattr("darkvocab.verification.server.Server.batch", lambda *_: 4)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    verify(folder, whole, endpoint=endpoint.url, **FEW)

    def interrupt(done, total):
        if done >= 2 * 4 * 9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        verify(folder, cut, endpoint=endpoint.url, progress=interrupt, **FEW)
    n_asked = len(endpoint.prompts)
    endpoint.statuses.extend([(500, {})] * 1000)
    with pytest.raises(Missing):
        verify(folder, cut, endpoint=endpoint.url, resume=True, **FEW)
    endpoint.statuses.clear()
    verify(folder, cut, endpoint=endpoint.url, resume=True, **FEW)
    assert len(endpoint.prompts) > n_asked
    for name in ("records.parquet", "records.csv", "manifest.json"):
        assert (cut / name).read_bytes() == (whole / name).read_bytes()


ODD = (None, 3, -1, 1e400, "x", [], [[]], [1], {}, {"tokens": 3}, {"tokens": ["a"]}, {"tokens": [1e3]}, {"data": [3]})
ODD += ({"data": {}}, {"data": [{"id": [1]}]}, {"data": [{"id": 1, "meta": 3}]}, {"version": []}, {"prompt": None})
ODD += ({"default_generation_settings": 3}, {"default_generation_settings": {"n_ctx": "x"}, "total_slots": "x"})
ODD += (
    {"default_generation_settings": {"n_ctx": -1}, "total_slots": -1},
    {"data": [{"id": 1, "meta": {"n_vocab": []}}]},
)
ODD += ({"choices": []}, {"choices": [{"logprobs": {"content": [{}]}}]}, {"choices": [{"logprobs": {"tokens": "ab"}}]})
ODD += ({"completion_probabilities": [[]]}, {"completion_probabilities": [{"token": {}, "top_logprobs": []}]})
ODD += ({"logprobs": [{"id": {}, "token": "a", "logprob": "x", "top_logprobs": {"a": 1}}]}, {"error": {"message": [1]}})


@pytest.mark.parametrize("kind", endpoints.KINDS)
def test_whatever_a_server_says_is_an_answer_or_a_sentence(kind, monkeypatch):
    texts = {token: endpoints.Endpoint().text(token) for token in range(N_TOKENS)}
    served = endpoints.Endpoint(kind)
    asked = Connection("http://localhost/v1" if kind.endswith("/v1") else "http://localhost")
    url = asked.url
    ours = tokenizer()
    routes = ("/props", "/v1/models", "/version", "/api/version", "/tokenize", "prompt")
    for route in routes:
        for odd in ODD:

            def send(path, body=None, route=route, odd=odd):
                if path == route or (route == "prompt" and body and path not in (*routes, "/apply-template")):
                    return 200, odd
                answer = served.get(path) if body is None else served.post(path, body)
                return (200 if answer else 404, answer) if body is None else answer

            asked.url = url
            monkeypatch.setattr(asked, "send", send)
            try:
                server = open_server(asked, "small", texts, read_frames()[0], lambda text: ours.encode(text).ids)
            except DarkvocabError:
                continue
            assert route != "prompt"
            assert 1 <= asked.at_once <= connection.MOST_AT_ONCE
            assert server.context is None or server.context > 0


@pytest.mark.slow
def test_each_worker_opens_a_connection_of_its_own(folder, endpoint):
    settings = Verify(source=str(folder), endpoint=endpoint.url, **FEW)
    answers = settings.run(engine="processes", workers=2)
    assert answers.equals(Verify(source=str(folder), endpoint=endpoint.url, **FEW).run())
