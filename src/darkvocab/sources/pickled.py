"""Pickles, read without unpickling.

The opcodes move inert values over a stack. What a pickle names is a `Name`, two texts: nothing is imported, and nothing
is called but the stand-ins that the caller of `read_pickle` gives for names it knows. There is no `pickle.Unpickler`
here whose methods a file could reach.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import CorruptFile, InvalidInput

MAX_OPCODES = 4_000_000  # some 40 a tensor; an opcode of one byte makes an object of a hundred
MAX_ARGUMENTS, MAX_NAME = 16, 200  # what is said once may be used a million times, so it must be short
UNREAD = (
    "nothing of it was run. Only tensors in dicts and lists are read: where you trust the file, load it with torch and "
    "save model.state_dict() alone"
)
LITERALS = frozenset(
    "INT BININT BININT1 BININT2 LONG LONG1 LONG4 STRING BINSTRING SHORT_BINSTRING BINBYTES SHORT_BINBYTES BINBYTES8 "
    "BYTEARRAY8 UNICODE SHORT_BINUNICODE BINUNICODE BINUNICODE8 FLOAT BINFLOAT".split()
)
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
OBJECTS = {"NEWOBJ": 2, "NEWOBJ_EX": 3}  # how far down the stack the class lies


@dataclass(frozen=True, slots=True)
class Name:
    """What a pickle names: a module and something in it. Inert."""

    module: str
    name: str

    def __post_init__(self) -> None:
        if not (type(self.module) is str and type(self.name) is str and len(self.module + self.name) <= MAX_NAME):
            raise InvalidInput("a name that is no text, or far too long")

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


class Pairs(list[tuple[Any, Any]]):
    """A dict as its pairs, in order: keys are never hashed, since a tuple of tuples of tuples hashes for years."""

    def add(self, items: list[Any]) -> None:
        if len(items) % 2:
            raise InvalidInput("a key without a value")
        self.extend(zip(items[::2], items[1::2], strict=True))


def read_pickle(
    data: bytes,
    *,
    calls: Mapping[str, Callable[..., Any]],
    builds: tuple[type, ...],
    refer: Callable[[Any], Any],
) -> Any:
    """The value that a pickle describes, dicts as `Pairs`, sets as lists.

    Parameters
    ----------
    calls : stand-ins for what may be called, by `module.name`; each must take a time that no argument lengthens
    builds : types whose attributes a pickle may set; they are dropped
    refer : makes something of a persistent id

    Returns
    -------
    What lies in several places is one object, and a list or dict may hold itself: whoever walks them must expect it.

    Raises
    ------
    CorruptFile
        Not a pickle; one that calls or builds anything else; more than four million opcodes. The sentence lacks the
        file's name.
    """
    try:
        return _run(data, calls, builds, refer)
    except CorruptFile:
        raise
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError) as error:
        raise CorruptFile(f"a pickle that cannot be read ({str(error)[:120]}); truncated, or made to mislead") from None


def _run(
    data: bytes, calls: Mapping[str, Callable[..., Any]], builds: tuple[type, ...], refer: Callable[[Any], Any]
) -> Any:
    stack: list[Any] = []
    below: list[list[Any]] = []  # the stacks under the marks
    memo: dict[int, Any] = {}
    argument: Any
    for n, (opcode, argument, _) in enumerate(pickletools.genops(data)):
        if n == MAX_OPCODES:
            raise CorruptFile(f"a pickle of more than {MAX_OPCODES:,} opcodes; save the weights alone")
        name = opcode.name
        if name in LITERALS:
            stack.append(argument)
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            stack.append(memo[argument])
        elif name in ("BINPUT", "LONG_BINPUT", "PUT"):
            memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name == "MARK":
            below.append(stack)
            stack = []
        elif name in CONSTANTS:
            stack.append(CONSTANTS[name])
        elif name in TUPLES:
            items = [stack.pop() for _ in range(TUPLES[name])]
            stack.append(tuple(reversed(items)))
        elif name in ("TUPLE", "LIST", "FROZENSET", "DICT"):
            items, stack = stack, below.pop()
            made: Any = items if name == "LIST" else tuple(items)
            if name == "DICT":
                made = Pairs()
                made.add(items)
            stack.append(made)
        elif name in ("EMPTY_LIST", "EMPTY_SET"):
            stack.append([])
        elif name == "EMPTY_DICT":
            stack.append(Pairs())
        elif name in ("SETITEM", "SETITEMS"):
            if name == "SETITEM":
                value, key = stack.pop(), stack.pop()
                items = [key, value]
            else:
                items, stack = stack, below.pop()
            if not isinstance(stack[-1], Pairs):
                raise CorruptFile(f"a pickle that sets items of {_told(stack[-1])}; only dicts are read")
            stack[-1].add(items)
        elif name in ("APPEND", "APPENDS", "ADDITEMS"):
            if name == "APPEND":
                items = [stack.pop()]
            else:
                items, stack = stack, below.pop()
            if type(stack[-1]) is not list:
                raise CorruptFile(f"a pickle that appends to {_told(stack[-1])}; only lists are read")
            stack[-1].extend(items)
        elif name == "GLOBAL":
            stack.append(Name(*argument.split(" ", 1)))
        elif name == "STACK_GLOBAL":
            attribute, module = stack.pop(), stack.pop()
            stack.append(Name(module, attribute))
        elif name == "REDUCE":
            arguments, called = stack.pop(), stack.pop()
            known = calls.get(str(called)) if type(called) is Name else None
            if known is None:
                raise _refusal(called)
            if type(arguments) is not tuple or len(arguments) > MAX_ARGUMENTS:
                raise InvalidInput("a call without a few arguments")
            stack.append(known(*arguments))
        elif name == "BUILD":
            stack.pop()  # attributes: dropped
            if type(stack[-1]) not in builds:
                raise CorruptFile(f"its pickle sets attributes of {_told(stack[-1])}, which is no tensor; {UNREAD}")
        elif name == "BINPERSID":
            stack.append(refer(stack.pop()))
        elif name == "POP":
            if stack:
                stack.pop()
            else:
                stack = below.pop()
        elif name == "POP_MARK":
            stack = below.pop()
        elif name == "DUP":
            stack.append(stack[-1])
        elif name == "STOP":
            if len(stack) != 1 or below:
                raise InvalidInput("values are left over at its end")
            return stack.pop()
        elif name not in ("PROTO", "FRAME"):  # INST, OBJ, NEWOBJ, NEWOBJ_EX, PERSID, EXT1, NEXT_BUFFER, ...
            raise _refusal(stack[-OBJECTS[name]] if name in OBJECTS else f"{name} {str(argument or '')[:80]}".strip())
    raise InvalidInput("it has no end")


def _refusal(called: Any) -> CorruptFile:
    return CorruptFile(f"its pickle calls {_told(called)}, which is no part of a tensor; {UNREAD}")


def _told(value: Any) -> str:
    return str(value)[:120] if isinstance(value, (Name, str)) else f"a {type(value).__name__}"
