"""Text for people: what may be shown, how it is cut, and how columns line up. Returns strings."""

from __future__ import annotations

from collections.abc import Sequence

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


def align_right(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return each row's cells in right-aligned columns, two spaces between them."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows
    ]
