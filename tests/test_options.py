"""docs/options.md against pytest itself: what can be set is described, and nothing else is."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_imu.core.counters.callgrind.command import USUAL_CACHES
from pytest_imu.core.growth import EXPECTED
from pytest_imu.settings import OPTIONS
from running import run_here

DOCUMENT = Path(__file__).parents[1] / "docs" / "options.md"
FLAG = re.compile(r"--(?:no-)?imu(?:-[a-z]+)*")
INI_KEY = re.compile(r"imu(?:_[a-z]+)*")
MARKER = re.compile(r"max_[a-z_]+")

needs_document = pytest.mark.skipif(
    not DOCUMENT.exists(), reason="needs docs/options.md, which an installed package is without"
)


@pytest.fixture
def said_by_pytest(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], list[str]]:
    """Return a function that runs pytest with a help option, wide, and returns its lines."""
    monkeypatch.setenv("COLUMNS", "200")
    return lambda option: run_here(pytester, option).outlines


def code_in_document() -> list[str]:
    """Return everything that stands in the document as code, between backticks."""
    return re.findall(r"`([^`\n]+)`", DOCUMENT.read_text(encoding="utf-8"))


def table() -> list[str]:
    """Return the table of all options as the document has it, from their declarations."""
    lines = [
        "| command line | ini key | value | default | what it does |",
        "| --- | --- | --- | --- | --- |",
    ]
    for option in OPTIONS.values():
        value = "" if option.kind.metavar is None else f"={option.kind.metavar}"
        flag = f"`{option.flag}{value if option.bare is None else f'[{value}]'}`"
        cells = [
            flag if option.on_command_line else "",
            f"`{option.name}`" if option.in_ini else "",
            option.kind.expected,
            option.default_text or "none",
            option.summary,
        ]
        lines.append(f"| {' | '.join(cells)} |".replace("|  |", "| |"))
    return lines


def first_words(pattern: re.Pattern[str], texts: list[str]) -> set[str]:
    """Return what the pattern finds at the start of the texts, where a whole name stands there."""
    found = (re.match(rf"(?:@pytest\.mark\.)?({pattern.pattern})(?![\w.-])", text) for text in texts)
    return {match[1] for match in found if match}


@needs_document
def test_the_table_of_options_is_that_of_the_declarations() -> None:
    """The document's table is made of the declarations; where it differs, copy the lines from here."""
    lines = DOCUMENT.read_text(encoding="utf-8").splitlines()

    assert table() == [line for line in lines if line.startswith("| ")]


def test_the_usual_caches_are_those_that_the_option_names() -> None:
    """The one default that is not imported until it is needed is in the option's words all the same."""
    assert USUAL_CACHES == OPTIONS["caches"].default_text


def test_an_increase_is_what_its_parser_takes() -> None:
    """So are the words for an increase: its parser says the same."""
    assert EXPECTED == OPTIONS["fail_increase"].kind.expected


@needs_document
def test_every_flag_is_described_and_no_other(said_by_pytest: Callable[[str], list[str]]) -> None:
    """The flags of the group in `--help` are the flags in the document."""
    helped = first_words(FLAG, [line.strip() for line in said_by_pytest("--help")])

    assert {"--imu", "--no-imu", "--imu-top"} <= helped
    assert helped == first_words(FLAG, code_in_document())


@needs_document
def test_every_ini_key_is_described_and_no_other(said_by_pytest: Callable[[str], list[str]]) -> None:
    """The ini keys in `--help` are the ini keys in the document."""
    lines = said_by_pytest("--help")
    helped = first_words(INI_KEY, [line.strip() for line in lines if re.match(r"  imu\w* \(", line)])

    assert {"imu", "imu_top", "imu_on_breach"} <= helped
    assert helped == first_words(INI_KEY, code_in_document())


@needs_document
def test_every_marker_is_described_and_no_other(said_by_pytest: Callable[[str], list[str]]) -> None:
    """The budgets in `--markers` are the budgets in the document."""
    listed = first_words(MARKER, said_by_pytest("--markers"))

    assert {"max_peak_mib", "max_delta_mib"} <= listed
    assert listed == first_words(MARKER, code_in_document())
