"""What a part of a JSON document must have: its keys, and the types of their values."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from types import UnionType
from typing import Any, Literal, NoReturn, Union, get_args, get_origin, get_type_hints

from pytest_imu.core.invalid import shown

Plain = Any  # Any: what comes out of JSON
Types = frozenset[type]
TEXT, FLAG, OBJECT, LIST = (frozenset({kind}) for kind in (str, bool, dict, list))
WHOLE, NUMBER, NONE = frozenset({int}), frozenset({int, float}), frozenset({type(None)})
PLAIN: Mapping[object, Types] = {
    int: WHOLE,
    float: NUMBER,
    str: TEXT,
    Literal: TEXT,
    bool: FLAG,
    tuple: LIST,
    type(None): NONE,
}
LIMIT = 2**63
"""No number is as large as this: what follows may calculate with it."""


class UnusableError(ValueError):
    """A document, or a part of one, that cannot be used; its text is the end of a sentence."""


class Form:
    """What keys a part of a document must have, and of which types their values may be."""

    def __init__(self, types: Mapping[str, Types]) -> None:
        self.types = types
        self._values = _getter(tuple(types))
        self._numbers: dict[tuple[type, ...], Callable[[Any], tuple[float, ...]]] = {}
        """By the types that were found good together, what picks the numbers out of their values.

        A document has a million parts, and few of these.
        """

    def check(self, part: Plain) -> None:
        """Raise UnusableError for a part of another form."""
        try:
            values = self._values(part)
        except (KeyError, TypeError):
            values = ()
        types = tuple(map(type, values))
        if (numbers_of := self._numbers.get(types)) is not None:
            numbers = numbers_of(values)
            if max(numbers) < LIMIT and min(numbers) > -LIMIT:
                return
        check_values(part, self.types)
        self._numbers[types] = _getter([place for place, kind in enumerate(types) if kind in NUMBER])


def types_of(record: type) -> dict[str, Types]:
    """Return the types of each field of a record in its plain form, from its annotations."""
    return {name: _types(hint) for name, hint in get_type_hints(record).items()}


def _types(hint: Any) -> Types:
    origin = get_origin(hint) or hint
    if origin in (Union, UnionType):
        return frozenset().union(*map(_types, get_args(hint)))
    return PLAIN.get(origin, OBJECT)


def _getter(keys: Sequence[Any]) -> Callable[[Any], tuple[Any, ...]]:
    """Return what picks these out of a part, as a tuple: of one key `itemgetter` would make none."""
    if not keys:
        return lambda _: (0,)
    return operator.itemgetter(*keys, keys[-1])


def check_values(part: Plain, types: Mapping[str, Types]) -> None:
    """Raise UnusableError where a part lacks a key, or has a value of another type or a huge number."""
    if type(part) is not dict:
        raise UnusableError(f"but has {shown(part)} in the place of an object")
    for key, expected in types.items():
        if key not in part:
            raise UnusableError(f"but has no {key!r}")
        value = part[key]
        if type(value) not in expected or (type(value) in NUMBER and not -LIMIT < value < LIMIT):
            refuse(key, part)


def refuse(key: str, part: Plain) -> NoReturn:
    """Raise UnusableError for the value of a key."""
    raise UnusableError(f"but has {shown(part[key])} for {key!r}")
