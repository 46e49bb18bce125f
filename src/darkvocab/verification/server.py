"""Ask a model behind an endpoint for the log-probabilities of its answers.

`open_server` finds out what a server can do; `servers.toml` has the protocol of each kind. Servers list only the
likeliest tokens; of an absent one an upper bound is known.
"""

import math
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Int64

from ..errors import AccessRefused, DarkvocabError, InvalidInput, MissingFile, Unreachable
from ..text import listed
from .connection import MOST_AT_ONCE, Connection
from .frames import ERRORS, MARK, Frame, Text
from .model import PLACES, TOKENS_AT_ONCE, Answer

SERVER_KINDS = tomllib.loads(Path(__file__).with_name("servers.toml").read_text("utf-8"))
PROMPT = "1 2 3 4 5 6"  # to find out what a server lists
TOKEN_ID = "token_id:"  # before an id, if a server names tokens so
ROUNDING = 1e-6  # of sums of float32 probabilities
TIE = 1e-3  # difference of log-probabilities up to which answers are equally likely
BIAS = 1000.0  # makes any token the next one
Encode = Callable[[str], list[int]]
Texts = Mapping[int, str | None]  # of every token
Result = TypeVar("Result")


class Unusable(Unreachable):
    """A server's answer cannot be used."""


NOT_ASKED = Answer(math.nan, 0, -1, False)
NOT_SAID = Answer(1.0, 0, -1, True)  # a place that the server leaves out


@dataclass(eq=False)
class Server:
    """Model behind an endpoint, asked in the same way as `Model`; made by `open_server`."""

    connection: Connection
    texts: Texts
    encode_source: Encode | None  # by the tokenizer of the source, without special tokens
    kind: str  # of `servers.toml`
    version: str | None
    model: str | None
    context: int | None
    templated: Callable[[str], str] | None = None
    has_tokenizer: bool = False
    most_listed: int = 0  # tokens that it is asked to list
    is_exact: bool = False  # it lists a named token, however unlikely
    by_text: bool = False  # prompts are texts, and tokens are named by theirs

    def __post_init__(self) -> None:
        self.protocol: dict[str, Any] = SERVER_KINDS[self.kind]

    @cached_property
    def _ids(self) -> dict[str | None, int]:
        return {text: token for token, text in reversed(list(self.texts.items())) if text}

    def encode(self, text: str, special: bool = True) -> list[int]:
        """Return the ids of a text by the server's tokenizer, else by the source's, without special tokens."""
        if self.has_tokenizer:
            asked = {"content": text, "prompt": text, "add_special": special, "add_special_tokens": special}
            return self._posted("/tokenize", asked, lambda answer: list(map(self._token, answer["tokens"])))
        if self.encode_source is None:
            raise MissingFile("neither the server nor the source has a tokenizer, by which frames become ids")
        return self.encode_source(text)

    def decode(self, token: int) -> str | None:
        return self.texts.get(token)

    def batch(self, *_: int) -> int:
        """Return how many tokens to ask for before answers are written."""
        return 16 * self.connection.at_once if self.connection.is_settled else 2 * TOKENS_AT_ONCE

    def facts(self) -> dict[str, Any]:
        """Return facts of the server for a manifest, without its key."""
        names = ("kind", "version", "model", "most_listed", "is_exact", "by_text")
        return {"server": {"endpoint": self.connection.url, **{name: getattr(self, name) for name in names}}}

    def answers(self, frame: Frame, tokens: Int64[np.ndarray, " batch"]) -> Iterator[Answer]:
        """Yield the answer's places in their order; raises as `Connection.send`, and Unusable."""
        said = self.connection.together(partial(self._ask, frame), tokens.tolist(), frame.name)
        for place in zip(*said, strict=True):
            yield Answer(*map(np.array, zip(*place, strict=True)))

    def _ask(self, frame: Frame, token: int) -> list[Answer]:
        """Return the places of the answer about one token."""
        ids = frame.ids.copy()
        ids[frame.places] = token
        prompt: str | list[int] = ids.tolist()
        if self.by_text:
            text = self.texts.get(token)
            prompt = frame.text.replace(MARK, text or "")
            if not text or self.encode_source is None or self.encode_source(prompt) != ids.tolist():
                return [NOT_ASKED] * PLACES
        places = self._places(prompt, token)
        if len(places) < PLACES and "leaves_out" in self.protocol:
            places = self._one_by_one(ids.tolist(), token)
        return (places + [NOT_SAID] * PLACES)[:PLACES]

    def _one_by_one(self, ids: list[int], token: int) -> list[Answer]:
        """Ask for one place after the other, forcing a plain token each time; listed are logits without that bias."""
        plain = next(token for token, text in self.texts.items() if text and text.isascii() and text.isalpha())
        places: list[Answer] = []
        for _ in range(PLACES):
            prompt = ids + [place.token for place in places]
            places += self._places(prompt, token, n_predict=1, max_tokens=1, logit_bias=[[plain, BIAS]])[:1]
        return places

    def _places(self, prompt: str | list[int], token: int, **forced: Any) -> list[Answer]:
        """Ask, and return the answer about a token at each place that is listed; raises as `answers`."""

        def read(answer: Any) -> list[Answer]:
            for key in self.protocol["listed"]:
                answer = answer.get(key) if isinstance(answer, dict) else answer[key]
            places = [self._said(token, *place, is_forced=bool(forced)) for place in _listed(answer)]
            if not places and (forced or "leaves_out" not in self.protocol):
                raise ValueError("it lists none")
            return places

        exact = {self.protocol["exact"]: [token]} if self.is_exact else {}
        asked = {**self.protocol["body"], self.protocol["count"]: self.most_listed, **exact, **forced, "prompt": prompt}
        return self._posted(self.protocol["path"], asked, read)

    def _said(self, token: int, answer: Any, logprob: Any, others: Mapping[Any, Any], is_forced: bool) -> Answer:
        """Check the log-probabilities of one place, the answer's first; return the answer about a token."""
        every = {answer: logprob, **others}
        tokens = list(map(self._token, every))
        logprobs = list(map(float, every.values()))
        p = list(map(math.exp, logprobs))
        most = max(logprobs)
        if not others:
            raise ValueError("it lists nothing but the answer")
        if not (most <= TIE and sum(p) <= 1.01):
            raise ValueError("they are none: NaN, or more than 1 in all")
        if most > logprobs[0] + TIE and not is_forced:
            raise ValueError("it ignores the temperature: the answer is not the likeliest token")
        wanted = self._ids.get(self.texts.get(token), token) if self.by_text else token
        came = tokens[logprobs.index(most)]
        came = token if came == wanted else came
        if wanted in tokens:
            place = tokens.index(wanted)
            rank = 1 + sum(other > logprobs[place] for other in logprobs)
            return Answer(p[place], 0 if self.is_exact and rank > 1 else rank, came, False)
        unnamed = [each for each, one in zip(p, tokens, strict=True) if one < 0]  # each may be the token
        return Answer(max([min(*p, max(1 - sum(p), 0) + ROUNDING), *unnamed]), 0, came, True)

    def _token(self, key: Any) -> int:
        """Return the token that a server names by its id or its text; -1 for another text."""
        if isinstance(key, str) and not key.startswith(TOKEN_ID):
            if not self.by_text:
                raise ValueError("it names tokens by their text alone")
            return self._ids.get(key, -1)
        token = int(str(key).removeprefix(TOKEN_ID))
        if token not in self.texts:
            raise ValueError(f"it names a token {token}, and so has a tokenizer of another vocabulary")
        return token

    def _posted(self, path: str, body: dict[str, Any], read: Callable[[Any], Result]) -> Result:
        """Return `read` of the answer; MissingFile where the server lacks the route or the model."""
        named = {"model": self.model} if self.model else {}
        status, answer = self.connection.send(path, {**named, **body})
        where = f"{self.connection.url}{path}"
        if status >= 300:
            refused = MissingFile if status == 404 else InvalidInput
            about = f"of the model {self.model!r}" if self.model else "where no --model is named"
            raise refused(f"{where} answers {status} {about}: {self.connection.said(answer)}")
        with _reading(where):
            return read(answer)


@contextmanager
def _reading(what: str) -> Iterator[None]:
    """Raise Unusable for an answer that cannot be read, with the reason of a ValueError."""
    try:
        yield
    except DarkvocabError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
        why = str(error) if type(error) is ValueError else f"it answers something else ({error!r})"
        raise Unusable(f"{what} gives no log-probabilities that can be used: {why}") from None


def open_server(
    connection: Connection, model: str | None, texts: Texts, frames: Sequence[Text], encode: Encode | None
) -> Server:
    """Find out the kind and the abilities of a server; with a URL that ends in /v1, by the OpenAI API alone.

    `texts` and `encode` are the source's: the text of each token, and its tokenizer without special tokens, which must
    encode `frames` as the server does. Raises InvalidInput for a server with another vocabulary, or several models of
    which none is named; otherwise as `Server.answers`.
    """
    is_openai = connection.url.endswith("/v1")
    connection.url = connection.url.removesuffix("/v1")
    with _reading(connection.url):
        props = {} if is_openai else _facts(connection, "/props")
        models = {str(one["id"]): one for one in _facts(connection, "/v1/models").get("data") or ()}
        if model is None and len(models) > 1:
            raise InvalidInput(f"{connection.url} has several models ({listed([*models], 6)}): name one by --model")
        model = model or next(iter(models), None)
        about: dict[str, Any] = models.get(str(model)) or next(iter(models.values()), {})
        kind, version = _kind(connection, props, about)
        if kind == "Ollama" and is_openai:
            raise InvalidInput(f"the /v1 of Ollama puts a template around each prompt; give {connection.url}")
        meta = about.get("meta") or {}
        n_vocab = meta.get("n_vocab") or len(texts)
        if n_vocab != len(texts):
            sizes = {"n_vocab": n_vocab, "n_texts": len(texts)}
            raise InvalidInput(ERRORS["other_size"].format(url=connection.url, **sizes))
        if slots := int(props.get("total_slots") or 0):
            connection.at_once = min(max(slots, 1), MOST_AT_ONCE)
            connection.is_settled = True
        context = props.get("default_generation_settings", meta).get("n_ctx") or about.get("max_model_len")
        server = Server(connection, texts, encode, kind, version, model, max(0, int(context or 0)) or None)
    if kind.startswith("llama.cpp"):
        server.templated = partial(_templated, server)
    _take_tokenizer(server, frames)
    _take_prompts(server)
    return server


def _kind(connection: Connection, props: dict[str, Any], about: dict[str, Any]) -> tuple[str, str | None]:
    """Return the kind of a server, of `servers.toml`, and its version."""
    if "default_generation_settings" in props:
        return "llama.cpp", props.get("build_info")
    if about.get("owned_by") == "llamacpp":
        return "llama.cpp /v1", None
    if about.get("owned_by") == "vllm":
        return "vLLM", _facts(connection, "/version").get("version")
    version = _facts(connection, "/api/version").get("version")
    return ("Ollama" if version else "OpenAI-compatible"), version


def _take_tokenizer(server: Server, frames: Sequence[Text]) -> None:
    """Let the server encode texts if it can; InvalidInput where it does so differently from the source."""
    asked = {"content": PROMPT, "prompt": PROMPT, "model": server.model}
    server.has_tokenizer = "tokens" in _facts(server.connection, "/tokenize", asked)
    for frame in frames if server.has_tokenizer and server.encode_source else ():
        if server.encode(frame.text, special=False) != server.encode_source(frame.text):  # type: ignore[misc]
            raise InvalidInput(ERRORS["other_ids"].format(url=server.connection.url, name=frame.name))


def _take_prompts(server: Server) -> None:
    """Find out which prompts the server takes and how many tokens it lists; raises the error of the last try."""
    rare = min(server.texts)
    ways = [(prompts, count, False) for prompts in server.protocol["prompts"] for count in server.protocol["counts"]]
    ways = [("ids", 1, True), *ways] if "exact" in server.protocol else ways
    refusal: Exception | None = None
    for prompts, server.most_listed, server.is_exact in ways:
        server.by_text = prompts == "text"
        try:
            said = server._places(PROMPT if server.by_text else server.encode(PROMPT), rare)
            if said and not (server.is_exact and any(one.bound for one in said)):
                return
        except (InvalidInput, Unusable) as error:
            refusal = error
    raise refusal or Unusable(f"{server.connection.url} lists no log-probabilities")


def _templated(server: Server, text: str) -> str:
    asked = {"messages": [{"role": "user", "content": text}]}
    return server._posted("/apply-template", asked, lambda answer: str(answer["prompt"]))


def _facts(connection: Connection, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the object that a GET or a POST answers; an empty one where the route is missing or closed."""
    try:
        status, answer = connection.send(path, body)
    except AccessRefused:  # raised again when prompts are tried
        return {}
    return answer if status < 300 and isinstance(answer, dict) else {}


def _listed(places: Any) -> Iterator[tuple[Any, Any, Mapping[Any, Any]]]:
    """Yield from a list of log-probabilities, for each place: the answer, its own, and those of others by id or text.

    llama.cpp and Ollama answer a list of places, OpenAI columns with a mapping for each place.
    """
    places = places.get("content", places) if isinstance(places, dict) else places
    if isinstance(places, dict):
        yield from zip(places["tokens"], places["token_logprobs"], places["top_logprobs"], strict=True)
        return
    for place in places or ():
        others = {one.get("id", one["token"]): one["logprob"] for one in place["top_logprobs"]}
        yield place.get("id", place["token"]), place["logprob"], others
