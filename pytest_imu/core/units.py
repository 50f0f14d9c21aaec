"""Bytes, nanoseconds and counts as people read them; the only place that rounds."""

from __future__ import annotations

MIB = 2**20
NANOSECONDS_PER_SECOND = 1_000_000_000


def mib(size_bytes: int) -> float:
    """Return a size in MiB (2**20 bytes), exactly: nothing is rounded."""
    return size_bytes / MIB


def format_mib(size_bytes: int | None, *, decimals: int = 1) -> str:
    """Return a size in MiB as text, without its unit; "n/a" for what could not be read.

    >>> format_mib(80_000_000)
    '76.3'
    >>> format_mib(-12)
    '0.0'
    """
    if size_bytes is None:
        return "n/a"
    # Adding 0.0 turns the "-0.0" of a tiny negative number into "0.0".
    return f"{round(mib(size_bytes), decimals) + 0.0:.{decimals}f}"


def format_limit(limit_mib: float) -> str:
    """Return a limit as its author typed it: 100 and not 100.0.

    >>> format_limit(100.0), format_limit(0.5)
    ('100', '0.5')
    """
    return str(int(limit_mib)) if limit_mib == int(limit_mib) else repr(float(limit_mib))


def format_seconds(duration_ns: int | None) -> str:
    """Return a duration in seconds as text, with its unit; "n/a" for what was not timed.

    >>> format_seconds(320_000_000)
    '0.32s'
    """
    return "n/a" if duration_ns is None else f"{duration_ns / NANOSECONDS_PER_SECOND:.2f}s"


def format_count(value: float) -> str:
    """Return a count with its thousands apart; what is no whole number, milliseconds, with two decimals.

    >>> format_count(8823), format_count(4.5)
    ('8,823', '4.50')
    """
    return f"{value:,.0f}" if value == int(value) else f"{value:,.2f}"
