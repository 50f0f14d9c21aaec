"""Sizes as people type them: 8GiB, 500 MiB, 90%."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pytest_imu.core.invalid import InvalidValueError

_SIZE = re.compile(r"(\d{1,18}(?:\.\d{1,18})?)\s*(?:([KMGT])(i?))?B", re.IGNORECASE | re.ASCII)
_SHARE = re.compile(r"(\d{1,3}(?:\.\d{1,18})?)\s*%", re.ASCII)
WHOLE = 100


def parse_bytes(text: str) -> int:
    """Return the bytes of a size with its unit: GiB is 2**30, GB is 10**9. Raises InvalidValueError.

    >>> parse_bytes("8GiB"), parse_bytes("1.5 MiB"), parse_bytes("2 GB")
    (8589934592, 1572864, 2000000000)
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise InvalidValueError(text, "a size with its unit, such as 8GiB, 500 MiB or 2GB")
    number, prefix, binary = match.groups()
    factor: int = (1024 if binary else 1000) ** " KMGT".index((prefix or " ").upper())
    return round(float(number) * factor)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cap:
    """The most that something may have: so many bytes, or a share of what there is."""

    text: str
    """As it was typed."""
    size_bytes: int | None = None
    percent: float | None = None

    def of(self, whole_bytes: int) -> int:
        """Return it in bytes."""
        if self.percent is not None:
            return round(whole_bytes * self.percent / WHOLE)
        return self.size_bytes or 0


def parse_cap(text: str) -> Cap:
    """Return what "8GiB" or "90%" stands for; raises InvalidValueError."""
    share = _SHARE.fullmatch(text.strip())
    if share is not None and 0 < float(share[1]) <= WHOLE:
        return Cap(text=text.strip(), percent=float(share[1]))
    try:
        size_bytes = parse_bytes(text)
    except InvalidValueError:
        size_bytes = 0
    if not size_bytes:
        raise InvalidValueError(text, CAP_EXPECTED)
    return Cap(text=text.strip(), size_bytes=size_bytes)


CAP_EXPECTED = "a size with its unit, such as 8GiB, or a share of what there is, such as 90%"
