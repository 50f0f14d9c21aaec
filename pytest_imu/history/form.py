"""What a part of a JSON document must have: its keys, and the types of their values."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any, NoReturn

from pytest_imu.core.invalid import shown

Plain = Any  # Any: what comes out of JSON
Types = frozenset[type]
TEXT, FLAG, OBJECT, LIST = (frozenset({kind}) for kind in (str, bool, dict, list))
WHOLE, NUMBER, NONE = frozenset({int}), frozenset({int, float}), frozenset({type(None)})
LIMIT = 2**63
"""No number is as large as this: what follows may calculate with it."""


class UnusableError(ValueError):
    """A document, or a part of one, that cannot be used; its text is the end of a sentence."""


class Form:
    """What keys a part of a document must have, and of which types their values may be."""

    def __init__(self, types: Mapping[str, Types]) -> None:
        self.types = types
        self._numbers = [key for key, expected in types.items() if expected & NUMBER]
        keys = [*self._numbers, *(key for key in types if key not in self._numbers)]
        # The last twice: of a single key it would be no tuple.
        self._get = operator.itemgetter(*keys, keys[-1])
        self._good: set[tuple[type, ...]] = set()
        """The types that were found good together: a document has a million parts, and few of these."""

    def check(self, part: Plain) -> None:
        """Raise UnusableError for a part of another form."""
        try:
            values = self._get(part)
        except (KeyError, TypeError):
            values = ()
        types = tuple(map(type, values))
        if types in self._good:
            numbers = [0, *filter(None, values[: len(self._numbers)])]
            if max(numbers) < LIMIT and min(numbers) > -LIMIT:
                return
        check_values(part, self.types)
        self._good.add(types)


def check_values(part: Plain, types: Mapping[str, Types]) -> None:
    """Raise UnusableError where a part lacks a key, or has a value of another type or a huge number."""
    if type(part) is not dict:
        message = f"but has {shown(part)} in the place of an object"
        raise UnusableError(message)
    for key, expected in types.items():
        if key not in part:
            message = f"but has no {key!r}"
            raise UnusableError(message)
        value = part[key]
        if type(value) not in expected or (type(value) in NUMBER and not -LIMIT < value < LIMIT):
            refuse(key, part)


def refuse(key: str, part: Plain) -> NoReturn:
    """Raise UnusableError for the value of a key."""
    message = f"but has {shown(part[key])} for {key!r}"
    raise UnusableError(message)
