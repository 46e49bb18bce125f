"""Cuts: proofs that a pattern that splits texts has a border inside some characters, wherever they stand."""

import functools
from collections.abc import Iterable

import numpy as np

from .pattern import NotRead, Pattern, code_points, members

MOST_STEPS = 20_000  # of one state by one class of characters; real patterns take some thousands

Threads = tuple[int, ...]  # instructions, the one that is preferred first


class Cuts:
    """Decide whether each split of a text by a pattern has a border inside given characters.

    A text is split where matches begin and end: a match is searched for from the end of the one before, at each
    character in turn until there is one; at each the engine takes the first way through the pattern that leads to a
    match. Some characters, ``b``, are *whole* in a text if no match begins or ends between two of them. Then one match
    holds all of them, or no match holds any.

    **One match.** It begins at or before ``b``, at the end of some left part ``u``: the text is ``t u' b v``, and
    matching begins before ``u'``. As the pattern looks at nothing on the left, the text ``u' b v`` is matched in the
    same way from its beginning. So some text keeps ``b`` whole in one match exactly if there are ``u'`` and ``v``
    such that the match at the beginning of ``u' b v`` ends at or behind the end of ``b``.
    The ways of the engine are followed all at once, in the order in which it prefers them [1]_: a state is the list
    of instructions that wait for the next character. One of a class of characters that the pattern cannot tell apart
    leads to the next state; a way that has come to a match ends those behind it. There are finitely many lists, and
    all that any ``u'`` leads to are found by trying every class in every state. From all of them at once the
    characters of ``b`` are followed. If no list is left with anything that waits, no match reaches the end of ``b``,
    whatever ``u'`` and ``v`` are.

    **No match.** There is a match at each character of a class in `_sure`, whatever follows: no text leads from there
    to its end without a match on its way. So no text leaves such a character outside of all matches, and ``b``
    that holds one cannot be whole in that way. Both together are the proof.

    References
    ----------
    .. [1] Cox, "Regular Expression Matching: the Virtual Machine Approach" (2009), on Pike's virtual machine.
    """

    def __init__(self, pattern: str, runtime: str = "tokenizers") -> None:
        read = Pattern(pattern, runtime)
        self._code = read.code
        tables = [members(one, runtime) for one in read.classes]
        # Code points that are in the same tables, of at most 64, are of one class.
        sets = np.zeros(len(code_points()), np.uint64)
        for n, table in enumerate(tables):
            sets[table] |= np.uint64(1 << n)
        _, examples, self._class_of = np.unique(sets, return_index=True, return_inverse=True)
        self._n = len(examples)  # classes; the number behind them stands for the end of the text
        self._holds = [[*table[examples].tolist(), False] for table in tables]
        # Two states by number: nothing waits any more; and the beginning.
        self._next = [[0] * self._n]  # of each state by class
        self._ends = [[False] * (self._n + 1)]  # a match ends before this class, or the text's end
        self._explore()
        unsure = self._unsure()
        self._sure = {n for n in range(self._n) if self._next[1][n] not in unsure}
        self._followed = functools.cache(self._follow)

    def always(self, characters: Iterable[np.ndarray]) -> bool:
        """Return whether it is proved that every split of every text cuts between two of some characters.

        `characters` holds the code points that each of them can be; it is decided for all of these together.
        """
        alike = [frozenset(self._class_of[np.searchsorted(code_points(), codes)].tolist()) for codes in characters]
        if not any(some <= self._sure for some in alike):
            return False
        states = frozenset(range(len(self._next)))
        for some in alike:
            states = self._followed(states, some)
        return states <= {0}

    def _follow(self, states: frozenset[int], classes: frozenset[int]) -> frozenset[int]:
        return frozenset(self._next[state][one] for state in states for one in classes)

    def _explore(self) -> None:
        """Find every state that texts lead to, and where each class leads from it."""
        waiting: list[Threads] = [(0,)]
        states: dict[Threads, int] = {(): 0, (0,): 1}
        for threads in waiting:
            steps = [self._step(threads, symbol) for symbol in range(self._n + 1)]
            if len(states) * self._n > MOST_STEPS:
                raise NotRead("too many states")
            row = []
            for behind, _ in steps[:-1]:
                if behind not in states:
                    states[behind] = len(states)
                    waiting.append(behind)
                row.append(states[behind])
            self._next.append(row)
            self._ends.append([ended for _, ended in steps])

    def _unsure(self) -> set[int]:
        """Find the states from which some text leads to its end without a match on its way."""
        unsure = {state for state, ends in enumerate(self._ends) if not ends[-1]}
        n_before = 0
        while n_before < len(unsure):
            n_before = len(unsure)
            for state, ends in enumerate(self._ends):
                if any(not ended and after in unsure for ended, after in zip(ends, self._next[state], strict=False)):
                    unsure.add(state)
        return unsure

    def _step(self, threads: Threads, symbol: int) -> tuple[Threads, bool]:
        """Follow the ways in order by one class, or the end; return what waits behind it, and if one matched before."""
        behind: list[int] = []
        seen: set[int] = set()
        stack = list(reversed(threads))
        while stack:
            at = stack.pop()
            if at in seen:
                continue
            seen.add(at)
            if at == len(self._code):
                return tuple(behind), True
            step = self._code[at]
            if step.kind == "either":
                stack += [at + step.b, at + step.a]
            elif step.kind == "jump":
                stack.append(at + step.a)
            elif step.kind == "peek":
                passes = step.at_end if symbol == self._n else self._holds[step.a][symbol] is step.within
                stack += [at + 1] if passes else []
            elif self._holds[step.a][symbol]:
                behind.append(at + 1)
        return tuple(behind), False
