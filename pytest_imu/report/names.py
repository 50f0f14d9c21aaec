"""The names in the table: whole where they fit, and never cut where the cut would tell no test apart."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from pytest_imu.core.units import cut_middle

FEWEST_COLUMNS = 30
"""Where there is less room, a name that does not fit stands on the lines below, all of it."""
FEWEST_PARAMETER_COLUMNS = 16
"""What is always left of the parameters in a name that is cut."""
INDENT = "  "


@dataclass(frozen=True, slots=True)
class Label:
    """What stands behind the numbers of a row: a name and, in brackets, what there is to say of it."""

    name: str
    remarks: str = ""
    is_test: bool = True

    @property
    def text(self) -> str:
        """All of it."""
        return self.name + self.remarks


def lay_out(labels: Sequence[Label], *, width: int, column: int, whole: bool) -> list[list[str]]:
    """Return the lines of the heading and of each label, none wider than *width*.

    The first line goes behind the numbers, into *column*; the others are lines of their own.
    *whole* is for names that are copied: they are neither shortened nor broken, and may run over.
    """
    room = width - column
    folder = ""
    if not whole and any(columns(label.text) > room for label in labels):
        folder = _shared_folder(labels)
        labels = [replace(label, name=label.name.removeprefix(folder)) for label in labels]
        labels = _shortened(labels, room, width)
    heading = Label("test", f" (in {folder})" if folder else "")
    return [_lines(one, width=width, column=column, whole=whole) for one in (heading, *labels)]


def columns(text: str) -> int:
    """Return how many columns of a terminal a text takes."""
    if text.isascii():
        return len(text)
    # Chinese, Japanese and Korean characters take two.
    return sum(2 if unicodedata.east_asian_width(char) in "FW" else 1 for char in text)


def _shared_folder(labels: Sequence[Label]) -> str:
    """Return the folder that all tests are in, with its slash; empty where there is none."""
    paths = [label.name.partition("::")[0].split("/")[:-1] for label in labels if label.is_test]
    shared = []
    for parts in zip(*paths, strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return "/".join([*shared, ""]) if shared else ""


def _shortened(labels: Sequence[Label], room: int, width: int) -> list[Label]:
    """Return the labels with names that fit, as far as no two tests come to look the same."""
    short = [_short_name(label, room, width) for label in labels]
    tests: defaultdict[str, set[str]] = defaultdict(set)
    for label, name in zip(labels, short, strict=True):
        tests[name].add(label.name)
    return [
        replace(label, name=name) if len(tests[name]) == 1 else label
        for label, name in zip(labels, short, strict=True)
    ]


def _short_name(label: Label, room: int, width: int) -> str:
    """Return the first way to write a name that fits behind the numbers, else into few lines."""
    if not label.is_test:
        return label.name
    path, separator, test = label.name.partition("::")
    _, slash, file = path.rpartition("/")
    brief = f".../{file}{separator}{test}" if slash else label.name
    for space in (room - columns(label.remarks), room):
        for name in (label.name, brief, _with_cut_parameters(brief, space)):
            if columns(name) <= space:
                return name
    return _with_cut_parameters(label.name, len(_head(label.name)) + width - len(INDENT))


def _head(name: str) -> str:
    """Return what stands before the function in a test's name: its file and classes."""
    path, separator, test = name.partition("::")
    return path + separator + "".join(test.partition("[")[0].rpartition("::")[:2])


def _with_cut_parameters(name: str, space: int) -> str:
    """Return a name whose parameters are cut as far as it takes, but never to nothing."""
    path, separator, test = name.partition("::")
    function, bracket, parameters = test.partition("[")
    if not parameters.endswith("]"):
        return name
    start = f"{path}{separator}{function}{bracket}"
    room = max(FEWEST_PARAMETER_COLUMNS, space - columns(start) - len("]"))
    length = room
    while columns(cut := cut_middle(parameters[:-1], length)) > room:
        length -= 1
    return f"{start}{cut}]"


def _lines(label: Label, *, width: int, column: int, whole: bool) -> list[str]:
    room = width - column
    if columns(label.text) <= room:
        return [label.text]
    if columns(label.name) <= room:  # the remarks go below
        return [label.name, *_below(label.remarks.strip(), width=width, column=column)]
    head = _head(label.name)
    while columns(head) > room:
        head = head.removesuffix("::").rpartition("::")[0]
        head += "::" if head else ""
    if whole:
        return ["", INDENT + label.text.strip()]
    if not head or room < FEWEST_COLUMNS:
        return ["", *_below(label.text.strip(), width=width, column=0)]
    return [head, *_below(label.text.removeprefix(head), width=width, column=column)]


def _below(text: str, *, width: int, column: int) -> list[str]:
    """Return a text on lines of its own, under its column where it fits there."""
    indent = INDENT + " " * column
    if columns(text) <= width - len(indent):
        return [indent + text]
    return [INDENT + piece for piece in folded(text, width - len(INDENT))]


def folded(text: str, room: int) -> list[str]:
    """Return a text in pieces that fit, broken between the words, or the parts of a name, if it can be.

    >>> folded("test_a.py::TestB::test_c[1-2] (setup)", 20)
    ['test_a.py::TestB::', 'test_c[1-2] (setup)']
    """
    pieces = []
    while columns(text) > room:
        length = _fitting_length(text, room)
        ends = (text.rfind(mark, 0, length) + len(mark) for mark in (" ", "::", "["))
        end = next((end for end in ends if end >= length // 3), length)
        pieces.append(text[:end].rstrip())
        text = text[end:].lstrip()
    return [*pieces, text]


def folded_below(text: str, width: int) -> list[str]:
    """Return a line of text in lines that fit, those after the first indented further than it."""
    if columns(text) <= width:
        return [text]
    indent = text[: len(text) - len(text.lstrip())] + INDENT
    first, *_ = folded(text.strip(), width - len(indent) + len(INDENT))
    rest = text.strip().removeprefix(first).lstrip()
    return [
        indent[len(INDENT) :] + first,
        *(indent + more for more in folded(rest, width - len(indent))),
    ]


def _fitting_length(text: str, room: int) -> int:
    length = min(len(text), max(room, 1))
    while length > 1 and columns(text[:length]) > room:
        length -= 1
    return length
