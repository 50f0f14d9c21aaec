"""Finding a perf that works, and saying why there is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_imu.core.counters.perf.command import (
    PerfCommand,
    find_perf,
    paranoid_level,
    why_refused,
)
from pytest_imu.core.counters.source import CannotCountError

WRAPPER = """#!/bin/sh
echo "WARNING: perf not found for kernel 6.5.0-21" >&2
echo "  You may need to install the following packages for this specific kernel:" >&2
exit 2
"""
WORKING = "#!/bin/sh\necho 'perf version 6.8.12'\n"


def program(path: Path, text: str) -> Path:
    """Write a program."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="ascii")
    path.chmod(0o755)
    return path


@pytest.mark.needs_proc
def test_perf_on_path_is_used(tmp_path: Path) -> None:
    """A perf that tells its version is the one to use."""
    perf = program(tmp_path / "perf", WORKING)
    expected = PerfCommand(path=str(perf), version=(6, 8))
    assert expected == find_perf(on_path=str(perf), tools=tmp_path / "none", platform="linux")
    assert expected.has_control


@pytest.mark.needs_proc
def test_wrapper_without_its_binary_is_passed_over(tmp_path: Path) -> None:
    """Behind the distribution's wrapper any perf of the linux-tools packages serves, newest first."""
    wrapper = program(tmp_path / "perf", WRAPPER)
    program(tmp_path / "linux-tools" / "5.15.0-9" / "perf", WORKING)
    newest = program(tmp_path / "linux-tools-6.8.0-3" / "perf", WORKING)
    assert str(newest) == find_perf(on_path=str(wrapper), tools=tmp_path, platform="linux").path


@pytest.mark.needs_proc
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (WRAPPER, "is the distribution's wrapper, without a perf for this kernel"),
        ("#!/bin/sh\necho hello\n", "--version says: hello"),
        ("#!/bin/sh\nexit 1\n", "--version says: nothing"),
        ("#!/no/such/interpreter\n", "does not run: No such file or directory"),
    ],
)
def test_perf_that_does_not_work_gives_its_reason(tmp_path: Path, text: str, reason: str) -> None:
    """A perf that cannot tell its version is named with what it said instead."""
    perf = program(tmp_path / "perf", text)
    with pytest.raises(CannotCountError) as caught:
        find_perf(on_path=str(perf), tools=tmp_path / "none", platform="linux")
    assert reason in str(caught.value)
    assert str(perf) in str(caught.value)


def test_no_perf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where none is on PATH and none is packaged, that is the reason."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CannotCountError, match="perf is not installed"):
        find_perf(tools=tmp_path, platform="linux")


@pytest.mark.parametrize("platform", ["win32", "darwin"])
def test_other_platforms_have_no_perf(platform: str) -> None:
    """Elsewhere nothing is looked for."""
    with pytest.raises(CannotCountError, match=f"perf is part of Linux, and this is {platform}"):
        find_perf(platform=platform)


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (
            "event syntax error: 'foo'\n            \\___ parser error\n",
            "perf does not know the event 'foo'",
        ),
        ("event syntax error: 'cpu/foo/'\n", "perf does not know the event 'cpu/foo/'"),
        (
            "Error:\nAccess to performance monitoring and observability operations is limited.\n",
            "perf was refused (perf_event_paranoid is 4; a container may refuse it too)",
        ),
        (
            "Error:\nNo permission to enable cycles event.\n",
            "perf was refused (perf_event_paranoid is 4; a container may refuse it too)",
        ),
        (
            "perf_event_open(...) failed: Operation not permitted\n",
            "perf was refused (perf_event_paranoid is 4; a container may refuse it too)",
        ),
        ("Events disabled\nEvents enabled\n", "perf ended: it said nothing"),
        ("", "perf ended: it said nothing"),
        ("\x1b[31mred\x07\x9b2J", r"perf ended: \x1b[31mred\x07\x9b2J"),
        ("\x1b]0;title\x1b\\\r\n", r"perf ended: \x1b]0;title\x1b" + "\\"),
        ("event syntax error: '\x1b[2J'", r"perf does not know the event '\x1b[2J'"),
        ("x" * 10_000, "perf ended: " + "x" * 200),
    ],
)
def test_reason_in_one_line(said: str, reason: str) -> None:
    """What perf said when it ended becomes one line, which moves no cursor."""
    assert reason == why_refused(said, level=4)


def test_paranoid_level(tmp_path: Path) -> None:
    """The level is the kernel's number, and None where there is none to read."""
    level = tmp_path / "perf_event_paranoid"
    assert paranoid_level(level) is None
    level.write_text("-1\n", encoding="ascii")
    assert -1 == paranoid_level(level)
