"""Servers: a model behind an endpoint, asked for the log-probabilities of what it answers.

What a server can do is asked first, by `open_server`; `servers.toml` has how each kind is asked. Only the likeliest
tokens are listed; of one that is absent an upper bound is known.
"""

from __future__ import annotations

import math
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int64

from ..errors import AccessRefused, DarkvocabError, InvalidInput, MissingFile, Unreachable
from ..text import listed
from .connection import Connection
from .frames import MARK, Frame, Text
from .model import MOST_TOGETHER, PLACES, Answer

KINDS = tomllib.loads(Path(__file__).with_name("servers.toml").read_text("utf-8"))
PROMPT = "1 2 3 4 5 6"  # by which is asked what a server lists
TOKEN_ID = "token_id:"  # before an id, where a server was asked to name tokens so
ROUNDING = 1e-6  # of sums of probabilities that were float32
TIED = 1e-3  # difference of log-probabilities of answers that are as likely
BIAS = 1000.0  # makes any token the next one; listed are probabilities before it
Encode = Callable[[str], list[int]]


class Listing(NamedTuple):
    """Tokens that a server lists for one place; -1: of a text that is no token's."""

    answer: int
    tokens: list[int]
    logprobs: list[float]

    @property
    def likeliest(self) -> int:
        return self.tokens[int(np.argmax(self.logprobs))]


class Said(NamedTuple):
    """One place of an answer, as `Answer` has it for a batch."""

    p: float
    rank: int
    token: int
    bound: bool


NOT_ASKED = Said(math.nan, 0, -1, False)
NOT_SAID = Said(1.0, 0, -1, True)  # a place that the server leaves out, of which nothing is known


class Server:
    """A model behind an endpoint, which is asked as `Model` is; made by `open_server`."""

    def __init__(self, connection: Connection, kind: str, model: str | None, texts: Mapping[int, str | None]) -> None:
        self.connection = connection
        self.kind = kind
        self.how: dict[str, Any] = KINDS[kind]
        self.model = model
        self.version: str | None = None
        self.context: int | None = None
        self.texts = texts
        self.n_listed = 0
        self.is_exact = False  # whether it gives the probability of the token that is asked for, however small
        self.by_text = False  # whether it takes text for a prompt, and names tokens by their text
        self.own: Encode | None = None  # the tokenizer of the source
        self.has_tokenizer = False  # whether the server encodes texts
        self.templated: Callable[[str], str] | None = None
        self._ids = {text: token for token, text in reversed(list(texts.items())) if text}

    def encode(self, text: str, special: bool = True) -> list[int]:
        """Return the ids of a text by the server's tokenizer, else by the source's, which adds no special ones."""
        if not self.has_tokenizer:
            if self.own is None:
                raise MissingFile("neither the server nor the source has a tokenizer to encode the frames with")
            return self.own(text)
        given = {"content": text, "prompt": text, "add_special": special, "add_special_tokens": special}
        answer = self._posted("/tokenize", {**given, "model": self.model})
        return [self._token(token) for token in answer["tokens"]]

    def decode(self, token: int) -> str | None:
        return self.texts.get(token)

    def batch(self, length: int, n_tokens: int, free: int) -> int:
        """Return how many tokens to ask for between two moments at which answers land."""
        return 2 * MOST_TOGETHER

    def facts(self) -> dict[str, Any]:
        """Return what the server is and what it lists, as a manifest has it; without its key."""
        names = ("kind", "version", "model", "n_listed", "is_exact", "by_text")
        return {"server": {"endpoint": self.connection.url, **{name: getattr(self, name) for name in names}}}

    def answers(self, frame: Frame, tokens: Int64[np.ndarray, " batch"]) -> Iterator[Answer]:
        """Yield the answer's places in their order, as `Model.answers`.

        Raises as `Connection.send`; Unreachable where an answer cannot be used.
        """
        begun = time.monotonic()
        said = self.connection.together(partial(self._ask, frame), tokens.tolist())
        self.connection.measured(frame.name, len(tokens) / (time.monotonic() - begun))
        for place in zip(*said, strict=True):
            yield Answer(*map(np.array, zip(*place, strict=True)))

    def _ask(self, frame: Frame, token: int) -> list[Said]:
        """Return the places of the answer about one token."""
        ids = frame.ids.copy()
        ids[frame.places] = token
        prompt: str | list[int] = ids.tolist()
        if self.by_text:
            text = self.texts.get(token)
            prompt = frame.text.replace(MARK, text or "")
            if not text or self.own is None or self.own(prompt) != ids.tolist():
                return [NOT_ASKED] * PLACES
        listings, stopped = self.listings(prompt, token)
        if len(listings) < PLACES and "leaves_out" in self.how:
            listings = self._one_by_one(ids.tolist(), token)
        if len(listings) < PLACES and not (self.by_text or stopped == "stop"):
            raise self._unusable(f"lists {len(listings)} places where {PLACES} were asked for")
        said = [self._said(listing, token) for listing in listings[:PLACES]]
        return said + [NOT_SAID] * (PLACES - len(said))

    def _one_by_one(self, ids: list[int], token: int) -> list[Listing]:
        """Return the places of an answer one by one: a token that is not left out is forced upon each.

        What is listed are the probabilities before that.
        """
        plain = next(token for token, text in self.texts.items() if text and text.isascii() and text.isalpha())
        forced = {"n_predict": 1, "max_tokens": 1, "logit_bias": [[plain, BIAS]]}
        places = []
        for _ in range(PLACES):
            (listing, *_), _ = self.listings(ids, token, forced)
            places.append(listing._replace(answer=listing.likeliest))
            ids = [*ids, listing.likeliest]
        return places

    def listings(
        self, prompt: str | list[int], token: int, changed: Mapping[str, Any] | None = None
    ) -> tuple[list[Listing], Any]:
        """Ask, and return what is listed for each place and why the server ended; raises as `answers`."""
        exact = {self.how["exact"]: [token]} if self.is_exact else {}
        named = {"model": self.model} if self.model else {}
        asked = {**self.how["body"], **named, self.how["count"]: self.n_listed, **exact, "prompt": prompt}
        answer = self._posted(self.how["path"], {**asked, **(changed or {})})
        try:
            listings = [self._listing(*entry) for entry in _entries(_at(answer, self.how["listed"]))]
            stopped = _at(answer, self.how["stopped"])
        except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise self._unusable(f"gives no log-probabilities as {self.kind} does ({error!r})") from None
        if not listings and (changed or "leaves_out" not in self.how):
            raise self._unusable("gives no log-probabilities")
        for one in listings if changed is None else ():
            if max(one.logprobs) > one.logprobs[0] + TIED:
                raise self._unusable("answers with a token that is not the likeliest: it ignores the temperature")
        return listings, stopped

    def _listing(self, answer: Any, logprob: Any, others: Mapping[Any, Any]) -> Listing:
        """Check what is listed for a place; the answer itself comes first."""
        if not others:
            raise ValueError("no other token is listed")
        every = {answer: logprob, **others}
        logprobs = list(map(float, every.values()))
        if not all(value <= TIED for value in logprobs):
            raise self._unusable("lists log-probabilities that are none (NaN, or above 0)")
        if sum(map(math.exp, logprobs)) > 1.01:
            raise self._unusable("lists probabilities that come to more than 1")
        tokens = list(map(self._token, every))
        return Listing(tokens[0], tokens, logprobs)

    def _token(self, key: Any) -> int:
        """Return the token that a server names by its id or its text, or -1."""
        if isinstance(key, str) and not key.startswith(TOKEN_ID):
            if not self.by_text:
                raise InvalidInput(f"{self.connection.url} names tokens by their text alone")
            return self._ids.get(key, -1)
        token = int(key.removeprefix(TOKEN_ID)) if isinstance(key, str) else key
        if not isinstance(token, int) or token not in self.texts:
            raise self._unusable(f"names a token {token!r}: it has a tokenizer of another vocabulary")
        return token

    def _said(self, listing: Listing, token: int) -> Said:
        """Return what a listing says of a token: its probability and rank, or a bound."""
        wanted = self._ids.get(self.texts.get(token) or "", -1) if self.by_text else token
        answer = token if listing.answer == wanted else listing.answer
        if wanted in listing.tokens:
            logprob = listing.logprobs[listing.tokens.index(wanted)]
            rank = 1 + sum(other > logprob for other in listing.logprobs)
            is_known = not self.is_exact or rank == 1  # else those between were not listed
            return Said(math.exp(logprob), rank if is_known else 0, answer, False)
        p = [math.exp(logprob) for logprob in listing.logprobs]
        unnamed = [each for each, listed in zip(p, listing.tokens, strict=True) if listed < 0]  # any may be the token
        return Said(max([min(*p, max(1 - sum(p), 0) + ROUNDING), *unnamed]), 0, answer, True)

    def _posted(self, path: str, body: dict[str, Any]) -> Any:
        """Return the JSON of an answer; MissingFile where there is no such model, InvalidInput where it is refused."""
        status, answer = self.connection.send(path, body)
        if status == 404:
            raise MissingFile(
                f"{self.connection.url}{path}: {self.connection.said(status, answer)}; is the model "
                f"{self.model!r} there? --model names another"
            )
        if status >= 300:
            raise InvalidInput(f"{self.connection.url}{path} refuses: {self.connection.said(status, answer)}")
        if answer is None:
            raise self._unusable("answers no JSON")
        return answer

    def _unusable(self, what: str) -> Unreachable:
        return Unreachable(f"{self.connection.url} {what}; it cannot be asked for probabilities")


def open_server(
    endpoint: str,
    *,
    model: str | None = None,
    api_key_env: str | None = None,
    texts: Mapping[int, str | None],
    frames: Sequence[Text] = (),
    own: Encode | None = None,
) -> Server:
    """Ask a server what it is and what it can do; where the URL ends in /v1, by the interface of OpenAI alone.

    Raises InvalidInput where it has several models and none is named, or a tokenizer of another vocabulary; Unreachable
    where it gives no log-probabilities; as `Connection.send`.

    Parameters
    ----------
    texts : of each token of the source, whose vocabulary must be the server's
    frames : texts that both tokenizers must make the same ids of
    own : the tokenizer of the source, which adds no special tokens; None without one
    """
    connection = Connection(endpoint, api_key_env)
    is_openai = connection.url.endswith("/v1")
    connection.url = connection.url.removesuffix("/v1")
    props = {} if is_openai else _facts(connection, "/props")
    models = [one for one in _facts(connection, "/v1/models").get("data") or () if isinstance(one, dict)]
    names = [str(one.get("id")) for one in models]
    if model is None and len(names) > 1:
        raise InvalidInput(f"{endpoint} has several models ({listed(names, 6)}): name one by --model")
    model = model or next(iter(names), None)
    about = next((one for one in models if one.get("id") == model), models[0] if models else {})
    kind, version = _kind(connection, props, about)
    if kind == "Ollama" and is_openai:
        raise InvalidInput(f"the /v1 of Ollama puts a template around each prompt; give {connection.url}")
    server = Server(connection, kind, model, texts)
    server.version = version and str(version)
    meta = _part(about, "meta")
    context = about.get("max_model_len") or _part(props, "default_generation_settings").get("n_ctx", meta.get("n_ctx"))
    server.context = context if isinstance(context, int) and context > 0 else None
    if isinstance(slots := props.get("total_slots"), int) and slots > 0:
        connection.at_once = slots
        connection.is_settled = True
    n_vocab = meta.get("n_vocab")
    if n_vocab not in (None, len(texts)):
        raise InvalidInput(
            f"{endpoint} has a tokenizer of another vocabulary: {n_vocab} tokens, the source has {len(texts)}"
        )
    _take_tokenizer(server, frames, own)
    if kind.startswith("llama.cpp"):
        server.templated = partial(_templated, server)
    _try_prompts(server)
    return server


def _part(facts: dict[str, Any], name: str) -> dict[str, Any]:
    part = facts.get(name)
    return part if isinstance(part, dict) else {}


def _kind(connection: Connection, props: dict[str, Any], about: dict[str, Any]) -> tuple[str, Any]:
    """Return the kind of a server, of `servers.toml`, and the version that it says it is."""
    if "default_generation_settings" in props:
        return "llama.cpp", props.get("build_info")
    if about.get("owned_by") == "llamacpp":
        return "llama.cpp /v1", None
    if about.get("owned_by") == "vllm":
        return "vLLM", _facts(connection, "/version").get("version")
    version = _facts(connection, "/api/version").get("version")
    return ("Ollama" if version else "OpenAI-compatible"), version


def _take_tokenizer(server: Server, frames: Sequence[Text], own: Encode | None) -> None:
    """Let the server encode texts if it does; InvalidInput where its ids are not those of the source's tokenizer."""
    server.own = own
    asked = {"content": PROMPT, "prompt": PROMPT, "model": server.model}
    server.has_tokenizer = isinstance(_facts(server.connection, "/tokenize", asked).get("tokens"), list)
    for frame in frames if server.has_tokenizer and own else ():
        try:
            ours = own(frame.text) if own else []
        except DarkvocabError:  # it cannot encode: nothing to compare with
            return
        if server.encode(frame.text, special=False) != ours:
            raise InvalidInput(
                f"{server.connection.url} has a tokenizer of another vocabulary: of the frame {frame.name} it makes "
                "other ids than that of the source"
            )


def _try_prompts(server: Server) -> None:
    """Find out which prompts the server takes and how many tokens it lists; Unreachable where it lists none."""
    rare = min(server.texts)
    refusal: DarkvocabError | None = None
    ways = [(prompts, count, False) for prompts in server.how["prompts"] for count in server.how["counts"]]
    for prompts, count, is_exact in [*([("ids", 1, True)] if "exact" in server.how else []), *ways]:
        server.by_text = prompts == "text"
        server.n_listed = count
        server.is_exact = is_exact
        try:
            listings, _ = server.listings(PROMPT if server.by_text else server.encode(PROMPT), rare)
        except InvalidInput as error:
            refusal = error
            continue
        if not listings:
            raise server._unusable("gives no log-probabilities")
        server.n_listed = min(count, *(len(one.tokens) for one in listings))
        if not is_exact or all(rare in one.tokens and (rare != one.answer) for one in listings):
            return
    raise InvalidInput(f"{server.connection.url} lists no log-probabilities that can be used: {refusal}")


def _templated(server: Server, text: str) -> str:
    answer = server._posted("/apply-template", {"messages": [{"role": "user", "content": text}]})
    return str(answer["prompt"])


def _facts(connection: Connection, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return what a GET or a POST says, or nothing where there is no such route, or none that is open."""
    try:
        status, answer = connection.send(path, body)
    except AccessRefused:  # whoever may not ask at all is told when prompts are tried
        return {}
    return answer if status < 300 and isinstance(answer, dict) else {}


def _at(answer: Any, keys: Sequence[str | int]) -> Any:
    for key in keys:
        answer = answer.get(key) if isinstance(answer, dict) else answer[key]
    return answer


def _entries(listed: Any) -> Iterator[tuple[Any, Any, Mapping[Any, Any]]]:
    """Yield each place of a list of log-probabilities: the answer, its own, and those of others by id or text.

    Of llama.cpp and Ollama a list of places, of OpenAI columns with a mapping for each place.
    """
    if isinstance(listed, dict) and "content" in listed:
        listed = listed["content"]
    if isinstance(listed, dict):
        yield from zip(listed["tokens"], listed["token_logprobs"], listed["top_logprobs"], strict=True)
        return
    for place in listed or ():
        others = {one.get("id", one["token"]): one["logprob"] for one in place["top_logprobs"]}
        yield place.get("id", place["token"]), place["logprob"], others
