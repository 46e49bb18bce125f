"""Complete bytes that begin or end inside a character to whole UTF-8 texts."""

import functools
import itertools
import re
from collections.abc import Iterator, Sequence

import numpy as np

MOST_COMPLETIONS = 1024  # characters to choose from on each side
_INSIDE = bytes(range(0x80, 0xC0))  # continuation bytes
_CONTINUED = (0, 0x80, 0x800, 0x10000)  # the first code point with so many continuation bytes
_PLANES = 0x40000  # no letters are behind these planes
_CODES = 0x110000
_SIGN, _LETTER = 1, 2


def completions(data: bytes) -> tuple[Sequence[str], str, Sequence[str]] | None:
    """Complete bytes to whole UTF-8: return possible first characters, the text between, possible last characters.

    Of more than 1,024 possible characters, as many are drawn, the same ones every time, letters and signs first. For
    bytes within one character these are the first ones, and the last is empty. None where no UTF-8 text holds the
    bytes.

    Examples
    --------
    >>> heads, between, tails = completions(b" the \\xe4\\xb8")
    >>> heads, between, len(tails), all(tail.encode().startswith(b"\\xe4\\xb8") for tail in tails)
    (('',), ' the ', 64, True)
    >>> completions(b"\\xff") is None
    True
    """
    cut = cut_apart(data)
    if cut is None:
        return None
    end, between, begin = cut
    if end and len(end) == len(data):
        inside = (_chosen(end, after) for after in range(4 - len(end)))
        return tuple(itertools.chain.from_iterable(inside)), "", ("",)
    return _chosen(end) if end else ("",), between, _chosen(begin) if begin else ("",)


def wholes(data: bytes, begin: int, end: int) -> Iterator[str]:
    """Yield completions number `begin` to `end` of bytes; none where no UTF-8 text holds the bytes."""
    completed = completions(data)
    if completed is None:
        return
    heads, between, tails = completed
    for n in range(begin, min(end, len(heads) * len(tails))):
        head = n % len(heads)
        yield heads[head] + between + tails[(head + n // len(heads)) % len(tails)]


def characters(data: bytes) -> list[np.ndarray] | None:
    """Return the possible code points of each character that bytes hold, in whole or in part.

    None where no UTF-8 text holds the bytes.

    Examples
    --------
    >>> [len(codes) for codes in characters(b" the \\xe4\\xb8")]
    [1, 1, 1, 1, 1, 64]
    """
    cut = cut_apart(data)
    if cut is None:
        return None
    end, between, begin = cut
    if end and len(end) == len(data):
        return [np.concatenate([_ended(end, after) for after in range(4 - len(end))])]
    whole = [np.array([ord(character)]) for character in between]
    return [*([_ended(end, 0)] if end else []), *whole, *([_beginning(begin)] if begin else [])]


def cut_apart(data: bytes) -> tuple[bytes, str, bytes] | None:
    """Cut bytes into the end of a character, whole ones, and the start of one; None where they are no UTF-8."""
    n = len(data) - len(data.lstrip(_INSIDE))
    if n > 3:
        return None
    try:
        return data[:n], data[n:].decode(), b""
    except UnicodeDecodeError as error:
        if error.reason != "unexpected end of data":
            return None
        begin = n + error.start
        return data[:n], data[n:begin].decode(), data[begin:]


def _bits(continuation: bytes) -> int:
    return functools.reduce(lambda bits, byte: bits << 6 | byte & 0x3F, continuation, 0)


@functools.lru_cache(2048)
def _chosen(data: bytes, after: int = 0) -> tuple[str, ...]:
    return _drawn(_beginning(data) if data[0] >= 0xC0 else _ended(data, after))


def _ended(continuation: bytes, after: int) -> np.ndarray:
    """Return the characters in which `after` bytes follow these continuation bytes."""
    n = len(continuation)
    high = np.arange(0, _CODES, 64 ** (n + after))
    codes = (high[:, None] + (_bits(continuation) << 6 * after) + np.arange(64**after)).ravel()
    return _proper(codes[(codes >= _CONTINUED[n + after]) & (codes < _CODES)])


def _beginning(data: bytes) -> np.ndarray:
    """Return the characters whose UTF-8 begins with these bytes, the first of which is a lead byte."""
    n_bytes = 2 + (data[0] >= 0xE0) + (data[0] >= 0xF0)
    lead = data[0] & (0x7F >> n_bytes)
    missing = n_bytes - len(data)
    begin = (lead << 6 * (len(data) - 1) | _bits(data[1:])) << 6 * missing
    return _proper(np.arange(max(begin, _CONTINUED[n_bytes - 1]), min(begin + 64**missing, _CODES)))


def _proper(codes: np.ndarray) -> np.ndarray:
    return codes[(codes < 0xD800) | (codes >= 0xE000)]


def _drawn(codes: np.ndarray) -> tuple[str, ...]:
    """Draw characters: letters or digits and signs in turn, as each suits other neighbours; then all others."""
    codes = np.random.default_rng(0).permutation(codes)
    kinds = np.zeros(len(codes), np.uint8)
    kinds[codes < _PLANES] = _kinds()[codes[codes < _PLANES]]
    letters, signs, others = (codes[kinds == kind][:MOST_COMPLETIONS].tolist() for kind in (_LETTER, _SIGN, 0))
    usual = (code for turn in itertools.zip_longest(letters, signs) for code in turn if code is not None)
    return tuple(map(chr, itertools.islice(itertools.chain(usual, others), MOST_COMPLETIONS)))


@functools.cache
def _kinds() -> np.ndarray:
    """Return the kind of each code point of the first planes: letter or digit, sign, or neither."""
    characters = list(map(chr, range(_PLANES)))
    kinds = np.fromiter(map(str.isprintable, characters), np.uint8, _PLANES) * np.uint8(_SIGN)
    for word in re.finditer(r"\w+", "".join(characters)):
        kinds[word.start() : word.end()] = _LETTER
    return kinds
