"""Goes through what values hold, for a limited time, without running any code of theirs."""

from __future__ import annotations

import array
import functools
import gc
import itertools
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import CodeType, FrameType, FunctionType, ModuleType, TracebackType
from typing import Any

from ipython_hooks.variables.buffers import Look, buffers_of
from ipython_hooks.variables.held import COMPARED, Held, spread
from pytest_imu.core.system import System

FEW = 500
"""Of a container with more elements only some are looked at."""
LOOKED_AT = 64
ROUNDS = 8
"""They are looked at in so many rounds, each spread over all; what is large has fewer."""
OBJECTS_OF_SAMPLES = 500
OBJECTS_OF_A_VALUE = 5_000
"""So many objects are looked at for one value, so that there is time left for the others."""
BETWEEN_CLOCKS = 16
POINTER_BYTES = 8
HEAD_BYTES = 16
HAS_GC, MANAGED_WEAKREFS, MANAGED_DICT = 1 << 14, 1 << 3, 1 << 4
"""CPython's flags of types (Py_TPFLAGS_...): what stands before an object, and beside it."""
ALIGNED_BYTES = 16
NOTHING = (type, ModuleType, CodeType, FrameType, property)
"""What is a program's own, or leads to all of it."""
SIZED = (str, bytes, bytearray, int, float, complex, range, array.array)
SEQUENCES: tuple[Any, ...] = (list, tuple, deque)
MODULES_OWN = ("__builtins__", "__spec__")
"""What a module's names have among them: they are its own."""
CACHE = type(functools.lru_cache(lambda: None))


class TimeIsUpError(Exception):
    """There is no time to look any further."""


class Walk:
    """One walk through a namespace, with one limit of time for all of it."""

    def __init__(
        self,
        limit_ns: int,
        *,
        barred: Iterable[object] = (),
        clock_ns: Callable[[], int] = System.thread_time_ns,
    ) -> None:
        """Look at what is reached from values for so long, and never at what is *barred*.

        It is the thread's own time: beside other programs as much is seen as alone.
        """
        self._clock_ns = clock_ns
        self._end_ns = clock_ns() + limit_ns
        self._objects = self._most_objects = 0
        self._barred = {id(one) for one in barred}
        self._looks: dict[type, Look] = {}
        self._buffers = buffers_of(self.sample)

    @property
    def is_over(self) -> bool:
        """Whether the time is up."""
        return self._clock_ns() >= self._end_ns

    def _count(self) -> None:
        """Count an object that is looked at; raises TimeIsUpError."""
        self._objects += 1
        if self._objects > self._most_objects or (self._objects % BETWEEN_CLOCKS == 0 and self.is_over):
            raise TimeIsUpError

    def held_by(self, *values: object) -> Held:
        """Return what values hold, all that can be reached from them included."""
        held = Held()
        self._most_objects = self._objects + OBJECTS_OF_A_VALUE
        try:
            for value in values:
                self._look_at(value, held)
        except Exception:  # noqa: BLE001 - the time is up, or what changes or is broken is seen in part
            held.is_partial = True
        return held

    def _look_at(self, start: object, held: Held) -> None:
        seen = set(self._barred)
        left = [start]
        while left:
            value = left.pop()
            if id(value) in seen:
                continue
            seen.add(id(value))
            self._count()
            kind = type(value)
            look = self._looks.get(kind)
            if look is None:
                look = self._looks[kind] = self._look_for(kind)
            look(value, held, left)

    def _look_for(self, kind: type) -> Look:
        """Return how values of a type are looked at."""
        for known, look in self._buffers:
            if issubclass(kind, known):
                return look
        known_looks: tuple[tuple[type | tuple[type, ...], Look], ...] = (
            (NOTHING, _look_at_nothing),
            (SIZED, _look_at_size),
            (SEQUENCES, self._look_at_sequence),
            (dict, self._look_at_dict),
            ((set, frozenset), self._look_at_set),
            (FunctionType, _look_at_function),
            (CACHE, _look_at_cache),
            (TracebackType, _look_at_traceback),
        )
        looks = (look for known, look in known_looks if issubclass(kind, known))
        return next(looks, _look_at_object)

    def _look_at_sequence(self, value: Any, held: Held, left: list[Any]) -> None:
        held.pieces[id(value)] = own_bytes(value)
        base = next(one for one in SEQUENCES if issubclass(type(value), one))
        count = base.__len__(value)  # its own methods may be written in Python
        if count <= FEW:
            left.extend(base.__iter__(value))
        elif base is deque:
            self.sample(count, _ends_of(deque.__iter__(value), deque.__reversed__(value)), held)
        else:
            some = [base.__getitem__(value, place) for place in spread(count, COMPARED)]
            self.sample(count, some, held)

    def _look_at_dict(self, value: dict[Any, Any], held: Held, left: list[Any]) -> None:
        if any(dict.__contains__(value, name) for name in MODULES_OWN):
            return
        held.pieces[id(value)] = own_bytes(value)
        for part in (dict.keys(value), dict.values(value)):
            if len(part) <= FEW:
                left.extend(part)
            else:
                self.sample(len(part), _ends_of(iter(part), reversed(part)), held)

    def _look_at_set(self, value: Any, held: Held, left: list[Any]) -> None:
        held.pieces[id(value)] = own_bytes(value)
        base = set if issubclass(type(value), set) else frozenset
        count, values = base.__len__(value), base.__iter__(value)
        if count <= FEW:
            left.extend(values)
        else:
            self.sample(count, [*itertools.islice(values, COMPARED)], held)

    def sample(self, count: int, some: Sequence[Any], held: Held) -> None:
        """Reckon what so many elements hold from some of them.

        Two containers of the same elements in the same order, as a list and its copy, hold them once.
        """
        ids = [id(one) for one in some]
        chosen = [some[place] for place in spread(len(some), LOOKED_AT)]
        enough = self._objects + OBJECTS_OF_SAMPLES
        samples: list[Held] = []
        try:
            for first in range(ROUNDS):
                for one in chosen[first::ROUNDS]:
                    samples.append(Held())
                    self._look_at(one, samples[-1])
                if self._objects > enough:
                    break
        finally:
            if samples:
                held.add_many((count, *ids[:: max(1, len(ids) // 8)]), count, samples, ids)


def own_bytes(value: object) -> int:
    """Return what an object itself takes; no `__sizeof__` that is written in Python is asked."""
    kind = type(value)
    asked = kind.__sizeof__ if not isinstance(kind.__sizeof__, FunctionType) else object.__sizeof__
    heads = bool(kind.__flags__ & HAS_GC) + bool(kind.__flags__ & (MANAGED_DICT | MANAGED_WEAKREFS))
    size_bytes = asked(value) + HEAD_BYTES * heads
    return -(-size_bytes // ALIGNED_BYTES) * ALIGNED_BYTES


def _ends_of(values: Iterator[Any], backwards: Iterator[Any]) -> list[Any]:
    """Return some of the first and of the last values: those between take as long as they are many."""
    half = COMPARED // 2
    return [*itertools.islice(values, half), *itertools.islice(backwards, half)]


def _look_at_nothing(value: object, held: Held, left: list[Any]) -> None:
    """Leave out what is a program's own: classes, modules, code, and frames that run."""


def _look_at_size(value: object, held: Held, left: list[Any]) -> None:  # noqa: ARG001 - holds no others
    held.pieces[id(value)] = own_bytes(value)


def _look_at_function(value: FunctionType, held: Held, left: list[Any]) -> None:
    """Look at what a function was made with; its globals are others'."""
    held.pieces[id(value)] = own_bytes(value)
    left += [value.__closure__, value.__defaults__, value.__kwdefaults__, value.__dict__]


def _look_at_cache(value: Any, held: Held, left: list[Any]) -> None:
    """Look into the cache of `functools.lru_cache`, whose entries cannot be sampled."""
    if value.cache_info().currsize <= FEW * 2:
        _look_at_object(value, held, left)
    else:
        held.is_partial = True


def _look_at_traceback(value: TracebackType, held: Held, left: list[Any]) -> None:  # noqa: ARG001 - others'
    """Look at the variables of the functions that an error has left."""
    for frame, _ in traceback.walk_tb(value):
        if frame.f_locals is not frame.f_globals:
            left.extend(frame.f_locals.values())


def _look_at_object(value: object, held: Held, left: list[Any]) -> None:
    """Look at any other object, and what it refers to: the collector of garbage knows."""
    others = gc.get_referents(value)
    size_bytes = own_bytes(value)
    if type(value).__flags__ & MANAGED_DICT:  # a table with a head; what is left is the type
        size_bytes += HEAD_BYTES + POINTER_BYTES * (len(others) - 1)
    held.pieces[id(value)] = size_bytes
    left.extend(others)
