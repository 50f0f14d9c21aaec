"""How a program is started under callgrind, and what is read back of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_imu.core.counters.callgrind.command import (
    Caches,
    callgrind_command,
    option,
    parse_caches,
    running_tool,
    running_under_callgrind,
)


def test_options_of_the_command(tmp_path: Path) -> None:
    """The command names each file, the caches, and the program last; what it says is read back."""
    python = ["python", "-m", "pytest"]
    command = callgrind_command("valgrind", python=python, caches=Caches(), out_folder=tmp_path)
    assert python == command[-3:]
    assert f"{tmp_path}/callgrind.out.%p" == option(command, "callgrind-out-file")
    assert ["32768,8,64", "8388608,16,64", "no"] == [option(command, o) for o in ("D1", "LL", "vgdb")]


def test_last_option_counts() -> None:
    """As in valgrind, the last of an option's values is the one."""
    assert "b" == option(["valgrind", "--x=a", "--x=b", "--xy=c"], "x")
    assert option(["valgrind"], "x") is None


def test_caches_are_read_back() -> None:
    """What is printed of caches is accepted; one that is not named is as usual."""
    assert Caches() == parse_caches(str(Caches()))
    assert "I1=32768,8,64 D1=49152,12,64 LL=8388608,16,64" == str(parse_caches("D1=49152,12,64"))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "caches such as I1=32768,8,64 D1=32768,8,64 LL=8388608,16,64$"),
        ("L2=32768,8,64", "caches such as .*, each at most once$"),
        ("D1=32k,8,64", "caches such as .*, each at most once$"),
        ("D1=32768,8,64 D1=32768,8,64", "caches such as .*, each at most once$"),
        ("D1=32768,8,16", "a line of 32 bytes or more, a power of two$"),
        ("D1=32768,8,48", "a line of 32 bytes or more, a power of two$"),
        ("D1=64,1,64", "a size of more than a line and less than 2 GiB$"),
        ("LL=2147483648,16,64", "a size of more than a line and less than 2 GiB$"),
        ("D1=0,8,64", "a size of more than a line"),
        ("D1=30000,8,64", "to be a power of two$"),
        ("D1=32768,3,64", "to be a power of two$"),
        ("D1=512,16,64", "to be a power of two$"),
        ("D1=32768,0,64", "to be a power of two$"),
    ],
)
def test_caches_that_valgrind_refuses(text: str, reason: str) -> None:
    """What valgrind would refuse is refused before it starts."""
    with pytest.raises(ValueError, match=reason):
        parse_caches(text)


def test_tool_is_read_from_the_maps(tmp_path: Path) -> None:
    """The tool is named by its mapped program; without valgrind's library nothing is read."""
    maps = tmp_path / "maps"
    maps.write_text("58000000-58001000 r--p 0 fe:00 1    /usr/libexec/valgrind/memcheck-amd64-linux\n")
    valgrind = {"LD_PRELOAD": "/usr/libexec/valgrind/vgpreload_core-amd64-linux.so:/lib/other.so"}
    assert "memcheck" == running_tool(valgrind, maps=maps)
    assert running_tool({}, maps=maps) is None
    assert running_tool(valgrind, maps=tmp_path / "gone") is None
    assert not running_under_callgrind()
