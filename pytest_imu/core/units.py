"""Bytes, nanoseconds and counts as people read them; the only place that rounds."""

from __future__ import annotations

from collections.abc import Sequence

MIB = 2**20
NANOSECONDS_PER_SECOND = 1_000_000_000


def mib(size_bytes: int) -> float:
    """Return a size in MiB (2**20 bytes), exactly: nothing is rounded."""
    return size_bytes / MIB


def mib_or_none(size_bytes: int | None) -> float | None:
    """Return a size in MiB; None for what could not be read."""
    return None if size_bytes is None else mib(size_bytes)


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


def format_signed_mib(size_bytes: int | None, *, decimals: int = 1) -> str:
    """Return a difference in MiB as text, always with its sign.

    >>> format_signed_mib(80_000_000), format_signed_mib(-12), format_signed_mib(None)
    ('+76.3', '+0.0', 'n/a')
    """
    text = format_mib(size_bytes, decimals=decimals)
    return text if size_bytes is None or text.startswith("-") else f"+{text}"


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


UNITS = {"B": 1, "KIB": 2**10, "MIB": MIB, "GIB": 2**30, "TIB": 2**40}


def format_bytes(size_bytes: int) -> str:
    """Return a size in the largest unit in which it is at least 1.

    >>> format_bytes(8 * 2**30), format_bytes(1536), format_bytes(12)
    ('8.0 GiB', '1.5 KiB', '12 B')
    """
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if abs(size_bytes) >= UNITS[unit.upper()]:
            return f"{size_bytes / UNITS[unit.upper()]:.1f} {unit}"
    return f"{size_bytes} B"


CUT = "..."


def printable(text: str) -> str:
    r"""Return *text* with everything that could move a cursor or fail to encode escaped.

    >>> printable("a\x1b[31mb\n")
    'a\\x1b[31mb\\n'
    """
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text
    )


def encodable(text: str, encoding: str) -> str:
    """Return *text* with everything escaped that *encoding* does not have."""
    return text.encode(encoding, "backslashreplace").decode(encoding)


def cut_middle(text: str, width: int) -> str:
    """Return *text* in at most *width* characters, both of its ends kept.

    >>> cut_middle("tests/test_image.py::test_load[png]", 20)
    'tests/te...load[png]'
    """
    if len(text) <= width:
        return text
    if width <= len(CUT):
        return text[:width]
    kept = width - len(CUT)
    return text[: kept // 2] + CUT + text[len(text) - (kept - kept // 2) :]


def plural(count: int, noun: str) -> str:
    """Return a count with its noun.

    >>> plural(1, "budget"), plural(3, "budget")
    ('1 budget', '3 budgets')
    """
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def format_amount(amount: float, noun: str) -> str:
    """Return how many there are on average, with as many decimals as it takes.

    >>> format_amount(1.0, "block"), format_amount(0.25, "thread"), format_amount(1200, "block")
    ('1 block', '0.25 threads', '1,200 blocks')
    """
    number = f"{amount:,.2f}".rstrip("0").rstrip(".")
    return f"{number} {noun}" if number == "1" else f"{number} {noun}s"


def align_right(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return each row's cells in right-aligned columns, two spaces between them."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows
    ]
