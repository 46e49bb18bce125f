"""Pickles, read without unpickling.

The opcodes move inert values over a stack. A global of a pickle becomes a `Name`, two texts: nothing is imported, and
only the stand-ins that the caller of `read_pickle` gives for known names are called. No `pickle.Unpickler` is used,
whose methods a file could reach.
"""

import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import CorruptFile, InvalidInput
from .tensors import FORMATS, SENTENCES

MAX_OPCODES = 4_000_000  # some 40 a tensor; an opcode of one byte makes an object of a hundred
MAX_ARGUMENTS = 16  # a file may use the same arguments a million times, so they must be few
MAX_GLOBAL = 200
UNREAD = SENTENCES["unread_pickle"]
OBJECTS = {"NEWOBJ": 2, "NEWOBJ_EX": 3}  # how far down the stack the class lies


@dataclass(frozen=True, slots=True)
class Name:
    """A module and something in it, as a pickle names them. Inert."""

    module: str
    name: str

    def __post_init__(self) -> None:
        if not (type(self.module) is str and type(self.name) is str and len(self.module + self.name) <= MAX_GLOBAL):
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
    data: bytes, *, calls: Mapping[str, Callable[..., Any]], builds: tuple[type, ...], refer: Callable[[Any], Any]
) -> Any:
    """Return the value that a pickle describes, dicts as `Pairs`, sets as lists.

    One object may lie in several places, and a list or dict may hold itself. `calls` are stand-ins for the callables
    that a pickle may name, by `module.name`; each must take constant time. Attributes that it sets on the types in
    `builds` are dropped; `refer` turns a persistent id into a value.

    Raises CorruptFile, whose sentence lacks the file's name: not a pickle; one that calls or builds anything else; more
    than four million opcodes.
    """
    try:
        return _Machine(calls=calls, builds=builds, refer=refer).run(data)
    except CorruptFile:
        raise
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError) as error:
        raise CorruptFile(f"a pickle that cannot be read ({str(error)[:120]}); truncated, or made to mislead") from None


@dataclass(kw_only=True)
class _Machine:
    """The stack of a pickle, the stacks under its marks, and its memo."""

    calls: Mapping[str, Callable[..., Any]]
    builds: tuple[type, ...]
    refer: Callable[[Any], Any]
    stack: list[Any] = field(default_factory=list)
    below: list[list[Any]] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)

    def run(self, data: bytes) -> Any:
        for n, (opcode, argument, _) in enumerate(pickletools.genops(data)):
            if n == MAX_OPCODES:
                raise CorruptFile(f"a pickle of more than {MAX_OPCODES:,} opcodes; save the weights alone")
            if opcode.name == "STOP":
                if len(self.stack) != 1 or self.below:
                    raise InvalidInput("values are left over at its end")
                return self.stack.pop()
            if opcode.name in OBJECTS:
                raise _refusal(self.stack[-OBJECTS[opcode.name]])
            if opcode.name not in OPERATIONS:  # INST, OBJ, PERSID, EXT1, NEXT_BUFFER, ...
                raise _refusal(f"{opcode.name} {str(argument or '')[:80]}".strip())
            OPERATIONS[opcode.name](self, argument)
        raise InvalidInput("it has no end")

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def memoize(self, at: int) -> None:
        self.memo[at] = self.stack[-1]

    def mark(self, _: object) -> None:
        self.below.append(self.stack)
        self.stack = []

    def from_mark(self, _: object = None) -> list[Any]:
        """Return the values above the last mark, and take up the stack under it."""
        items = self.stack
        self.stack = self.below.pop()
        return items

    def last(self, n: int) -> list[Any]:
        """Take the last `n` values from the stack, in their order."""
        return [self.stack.pop() for _ in range(n)][::-1]

    def dict_of(self, _: object) -> None:
        items = self.from_mark()
        self.push(Pairs())
        self.set_items(items)

    def set_items(self, items: list[Any]) -> None:
        if not isinstance(self.stack[-1], Pairs):
            raise CorruptFile(f"a pickle that sets items of {_described(self.stack[-1])}; only dicts are read")
        self.stack[-1].add(items)

    def extend(self, items: list[Any]) -> None:
        if type(self.stack[-1]) is not list:
            raise CorruptFile(f"a pickle that appends to {_described(self.stack[-1])}; only lists are read")
        self.stack[-1].extend(items)

    def call(self, _: object) -> None:
        called, arguments = self.last(2)
        stand_in = self.calls.get(str(called)) if type(called) is Name else None
        if stand_in is None:
            raise _refusal(called)
        if type(arguments) is not tuple or len(arguments) > MAX_ARGUMENTS:
            raise InvalidInput("a call without a few arguments")
        self.push(stand_in(*arguments))

    def build(self, _: object) -> None:
        self.stack.pop()  # attributes: dropped
        if type(self.stack[-1]) not in self.builds:
            described = _described(self.stack[-1])
            raise CorruptFile(f"its pickle sets attributes of {described}, which is no tensor; {UNREAD}")

    def pop(self, _: object) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self.from_mark()


EFFECTS: dict[str, Callable[[_Machine, Any], object]] = {  # of opcodes, on the machine, with their arguments
    FORMATS["pickle_literals"]: _Machine.push,
    "NONE": lambda machine, _: machine.push(None),
    "NEWTRUE": lambda machine, _: machine.push(True),
    "NEWFALSE": lambda machine, _: machine.push(False),
    "EMPTY_TUPLE": lambda machine, _: machine.push(()),
    "EMPTY_LIST EMPTY_SET": lambda machine, _: machine.push([]),
    "EMPTY_DICT": lambda machine, _: machine.push(Pairs()),
    "TUPLE1": lambda machine, _: machine.push(tuple(machine.last(1))),
    "TUPLE2": lambda machine, _: machine.push(tuple(machine.last(2))),
    "TUPLE3": lambda machine, _: machine.push(tuple(machine.last(3))),
    "TUPLE FROZENSET": lambda machine, _: machine.push(tuple(machine.from_mark())),
    "LIST": lambda machine, _: machine.push(machine.from_mark()),
    "DICT": _Machine.dict_of,
    "SETITEM": lambda machine, _: machine.set_items(machine.last(2)),
    "SETITEMS": lambda machine, _: machine.set_items(machine.from_mark()),
    "APPEND": lambda machine, _: machine.extend(machine.last(1)),
    "APPENDS ADDITEMS": lambda machine, _: machine.extend(machine.from_mark()),
    "BINGET LONG_BINGET GET": lambda machine, at: machine.push(machine.memo[at]),
    "BINPUT LONG_BINPUT PUT": _Machine.memoize,
    "MEMOIZE": lambda machine, _: machine.memoize(len(machine.memo)),
    "MARK": _Machine.mark,
    "GLOBAL": lambda machine, named: machine.push(Name(*named.split(" ", 1))),
    "STACK_GLOBAL": lambda machine, _: machine.push(Name(*machine.last(2))),
    "REDUCE": _Machine.call,
    "BUILD": _Machine.build,
    "BINPERSID": lambda machine, _: machine.push(machine.refer(machine.stack.pop())),
    "POP": _Machine.pop,
    "POP_MARK": _Machine.from_mark,
    "DUP": lambda machine, _: machine.push(machine.stack[-1]),
    "PROTO FRAME": lambda machine, _: None,
}
OPERATIONS = {name: effect for names, effect in EFFECTS.items() for name in names.split()}


def _refusal(called: Any) -> CorruptFile:
    return CorruptFile(f"its pickle calls {_described(called)}, which is no part of a tensor; {UNREAD}")


def _described(value: Any) -> str:
    return str(value)[:120] if isinstance(value, (Name, str)) else f"a {type(value).__name__}"
