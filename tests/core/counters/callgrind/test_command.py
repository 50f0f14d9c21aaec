"""How a program is started under callgrind, and what is read back of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_imu.core.counters.callgrind.command import (
    USUAL_CACHES,
    callgrind_command,
    find_valgrind,
    option,
    parse_caches,
    running_tool,
    running_under_callgrind,
    why_refused,
)


def test_options_of_the_command(tmp_path: Path) -> None:
    """The command names each file, the caches, and the program last; what it says is read back."""
    python = ["python", "-m", "pytest"]
    command = callgrind_command("valgrind", python=python, caches=USUAL_CACHES, out_folder=tmp_path)
    assert python == command[-3:]
    assert f"{tmp_path}/callgrind.out.%p" == option(command, "callgrind-out-file")
    assert ["32768,8,64", "8388608,16,64", "no"] == [option(command, o) for o in ("D1", "LL", "vgdb")]


def test_last_option_counts() -> None:
    """As in valgrind, the last of an option's values is the one."""
    assert "b" == option(["valgrind", "--x=a", "--x=b", "--xy=c"], "x")
    assert option(["valgrind"], "x") is None


def test_caches_are_read_back() -> None:
    """What is printed of caches is accepted; one that is not named is as usual."""
    assert USUAL_CACHES == parse_caches(USUAL_CACHES)
    assert "I1=32768,8,64 D1=49152,12,64 LL=8388608,16,64" == parse_caches("D1=49152,12,64")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "L2=32768,8,64",
        "D1=32k,8,64",
        "D1=32768,8",
        "D1=32768,8,64,2",
        "D1=32768,8,64 D1=32768,8,64",
        "D1=32768,8,64 nonsense",
        "D1=32768,0,64",
        "D1=32768,08,64",
        "D1=99999999999,8,64",
        "D1=٣٢,8,64",
    ],
)
def test_form_of_caches(text: str) -> None:
    """What has not the form of caches is refused before valgrind is asked."""
    with pytest.raises(ValueError, match=f"expected caches such as {USUAL_CACHES}, each at most once"):
        parse_caches(text)


@pytest.mark.needs_valgrind
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("D1=32768,8,16", "Callgrind: cannot continue: the minimum line size (16) must be equal to or"),
        ("D1=64,1,64", "Cache size <= line size. Bad option: --D1=64,1,64"),
        ("LL=2147483648,16,64", "Bad option: --LL=2147483648,16,64 One of the cache parameters was too"),
        ("D1=32768,3,64", "Cache set count is not a power of two. Bad option: --D1=32768,3,64"),
        ("D1=49152,12,64", None),
    ],
)
def test_caches_that_valgrind_refuses(text: str, reason: str | None) -> None:
    """Which sizes may be simulated valgrind itself says, in one line."""
    said = why_refused(find_valgrind()[0], parse_caches(text))
    assert reason == (said and said[: len(reason or "")])
    assert said is None or said.isprintable()


def test_tool_is_read_from_the_maps(tmp_path: Path) -> None:
    """The tool is named by its mapped program; without valgrind's library nothing is read."""
    maps = tmp_path / "maps"
    maps.write_text("58000000-58001000 r--p 0 fe:00 1    /usr/libexec/valgrind/memcheck-amd64-linux\n")
    valgrind = {"LD_PRELOAD": "/usr/libexec/valgrind/vgpreload_core-amd64-linux.so:/lib/other.so"}
    assert "memcheck" == running_tool(valgrind, maps=maps)
    assert running_tool({}, maps=maps) is None
    assert running_tool(valgrind, maps=tmp_path / "gone") is None
    assert not running_under_callgrind()
