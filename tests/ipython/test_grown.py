"""The names in a command's line: those that hold what it used, and no others."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from ipython_hooks.variables import grown
from ipython_hooks.variables.grown import GrowingNames
from pytest_imu.core.units import MIB

pytest.importorskip("IPython", reason="needs_ipython: pip install 'pytest-imu[ipython]'")

Shell = Callable[..., Any]


class FakeShell:
    """A shell with a namespace, and nothing more."""

    def __init__(self) -> None:
        self.user_ns: dict[str, Any] = {}
        self.user_ns_hidden: dict[str, Any] = {}


class Commands:
    """A namespace in which commands are played, and what is said of each."""

    def __init__(self) -> None:
        self.shell = FakeShell()
        self.names = GrowingNames(self.shell)

    def run(self, kept_mib: float, **changes: Any) -> list[tuple[str, float]]:
        """Set names, or delete those that become None; return the names that are said, in MiB."""
        self.shell.user_ns.update(changes)
        for name in [name for name, value in self.shell.user_ns.items() if value is None]:
            del self.shell.user_ns[name]
        said = self.names.after_command(round(kept_mib * MIB))
        return [(name, round(size_bytes / MIB, 1)) for name, size_bytes in said]


def block(count: int) -> bytearray:
    """Return so many MiB."""
    return bytearray(count * MIB)


@pytest.fixture
def commands() -> Commands:
    """Return an empty namespace."""
    return Commands()


def test_new_and_grown(commands: Commands) -> None:
    """New names are said, and how much more old ones hold; what is small beside the rest is not."""
    assert [("b", 8.0), ("a", 5.0)] == commands.run(13, a=block(5), b=block(8))
    held = [block(2)]
    assert [("held", 2.0)] == commands.run(2, held=held)
    held.append(block(40))
    assert [("held", 40.0)] == commands.run(41, small=block(1))
    four = {f"n{number}": block(number) for number in (3, 4, 5, 6)}
    assert [("n6", 6.0), ("n5", 5.0), ("n4", 4.0)] == commands.run(18, **four)


def test_a_second_name_for_the_same(commands: Commands) -> None:
    """What another name held already is not the new one's, and is none when the first name goes."""
    whole = block(9)
    assert [("whole", 9.0)] == commands.run(9, whole=whole)
    assert [("more", 3.0)] == commands.run(3, view=memoryview(whole)[:5], more=block(3))
    assert [] == commands.run(0, whole=None)
    assert [("last", 20.0)] == commands.run(20, last=block(20))


def test_new_ones_in_place_of_others(commands: Commands) -> None:
    """A name that is bound to something larger has grown by the difference."""
    commands.run(10, a=block(10), gone=block(5))
    assert [("a", 20.0)] == commands.run(20, a=block(30))
    assert [("b", 12.0)] == commands.run(7, gone=None, b=block(12))
    commands.run(-30, a=None)
    assert [("a", 4.0)] == commands.run(4, a=block(4))


def test_what_does_not_fit_is_not_said(commands: Commands) -> None:
    """What was made unseen, or takes no memory yet, is not said of a command that kept less."""
    assert [] == commands.run(0.5, unseen=block(50))
    assert [("seen", 10.0)] == commands.run(10, seen=block(10))
    assert [] == commands.run(-20, other=block(2))


def test_what_is_still_there(commands: Commands) -> None:
    """Of what commands made that is told which their names still hold, as it is now."""
    words = [block(3)]
    said = [commands.names.after_command(0)]
    for kept, names in ((7, {"a": block(7)}), (3, {"words": words}), (5, {"b": block(5)})):
        commands.shell.user_ns.update(names)
        said.append(commands.names.after_command(kept * MIB))
    words.append(block(4))
    said.append(commands.names.after_command(4 * MIB))

    def still() -> list[dict[str, int]]:
        held = commands.names.still_held(said)
        return [{name: round(size / MIB) for name, size in one.items()} for one in held]

    assert [{}, {"a": 7}, {"words": 3}, {"b": 5}, {"words": 4}] == still()
    commands.shell.user_ns["a"] = block(6)  # another one
    del commands.shell.user_ns["b"], words[1]
    assert [{}, {}, {}, {}, {"words": 3}] == still()


def test_outputs_are_names(commands: Commands) -> None:
    """A result that only the shell keeps is said by its number."""
    kept = block(6)
    assert [("Out[3]", 6.0)] == commands.run(6, _oh={3: kept}, _=kept)
    held = block(9)
    assert [("held", 9.0)] == commands.run(9, _oh={3: kept, 4: held}, _=held, __=kept, held=held)


def test_no_time(commands: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names for which there was no time are not said, then or later."""
    monkeypatch.setattr(grown, "LIMIT_NS", 0)
    assert [] == commands.run(8, a=block(8))
    monkeypatch.setattr(grown, "LIMIT_NS", 10**10)
    assert [("b", 7.0)] == commands.run(7, b=block(7))


def test_quiet_commands_cost_nothing(commands: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody looks after a command that kept next to nothing and left the large names alone."""
    commands.run(8, a=block(8))

    def look() -> dict[str, int]:
        raise AssertionError

    monkeypatch.setattr(commands.names, "look", look)
    assert [] == commands.run(0.9, small=1)
    with pytest.raises(AssertionError):
        commands.run(0.9, a=1)


@pytest.mark.needs_kernel_peaks
@pytest.mark.needs_malloc_trim
def test_in_the_line(shell: Shell) -> None:
    """The line names what was made, and what was there before the extension is nobody's."""
    seen = shell("""
        shell.run_cell("early = bytearray(30 * 2**20)")
        run("%unload_ext ipython_hooks")
        run("%load_ext ipython_hooks")
        seen["lines"] = [
            report("a = bytearray(50 * 2**20); b = bytearray(20 * 2**20)"),
            report("a.extend(bytes(25 * 2**20))"),
            report("c = a"),
            report("del a, c"),
            report("memoryview(bytearray(10 * 2**20))"),
        ]
        seen["rows"] = [row["names"] for row in shell.user_ns["imu_history"]][-5:]
        from ipython_hooks.variables import grown
        def broken(*_):
            raise KeyError("broken")
        grown.names_of = broken
        seen["broken"] = report("d = bytearray(50 * 2**20)")
    """)
    names = [re.findall(r"MiB RAM \((.*?)\) in", line) for line in seen["lines"]]
    assert [["a 50.0, b 20.0"], ["a 25.0"], [], [], ["Out[8] 10.0"]] == names
    assert ["a, b", "a", "", "", "Out[8]"] == seen["rows"]
    assert re.search(r"' used 50\.\d MiB RAM in ", seen["broken"])
