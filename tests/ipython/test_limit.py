"""The hard cap: the allocation that would pass it raises MemoryError, and everything else goes on."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest

from ipython_hooks.limit import MemoryLimit
from pytest_imu.core.units import MIB

SCRIPT = """
import json, re, resource, sys
from pytest_imu.core.memory import platforms
from ipython_hooks.limit import MemoryLimit
MIB = 2**20
rss_bytes = platforms.rss_bytes
current = lambda: resource.getrlimit(resource.RLIMIT_DATA)
def caught(function):
    try:
        function()
    except MemoryError as error:
        inner = error.__traceback__.tb_next
        return [type(error).__name__, inner.tb_lineno - function.__code__.co_firstlineno]
    return None
"""


@pytest.mark.needs_proc
def test_plain_python_meets_the_cap_at_its_own_line(run_python: Callable[..., Any]) -> None:
    """The allocation that would pass the cap raises, where it stands, and what was there is there."""
    script = """
kept = {"a": [1, 2, 3]}
limit = MemoryLimit()
limit.set(rss_bytes() + 128 * MIB)
def body():
    small = bytearray(32 * MIB)
    large = bytearray(512 * MIB)
    never = 1
raised = caught(body)
again = bytearray(64 * MIB)
print(json.dumps([raised, kept, len(again), limit.total_bytes > 128 * MIB]))
"""
    expected = [["MemoryError", 2], {"a": [1, 2, 3]}, 64 * MIB, True]
    assert expected == run_python(SCRIPT + script)


@pytest.mark.needs_proc
def test_numpy_meets_the_cap_at_its_own_line(run_python: Callable[..., Any]) -> None:
    """An allocation of numpy's raises a MemoryError too, and its arrays survive."""
    script = """
import numpy as np
kept = np.arange(1000)
limit = MemoryLimit()
limit.set(rss_bytes() + 128 * MIB)
def body():
    small = np.ones(4 * MIB)
    large = np.ones(64 * MIB)
    never = 1
print(json.dumps([caught(body)[1], int(kept.sum()), np.ones(4 * MIB).nbytes]))
"""
    assert [2, 499_500, 32 * MIB] == run_python(SCRIPT + script)


@pytest.mark.needs_proc
def test_cap_is_where_it_was_asked_for(run_python: Callable[..., Any]) -> None:
    """Filled MiB by MiB, the process comes to within 8 MiB of the cap, and not past it."""
    script = """
limit = MemoryLimit()
limit.set(rss_bytes() + 128 * MIB)
held = []
try:
    while len(held) < 1000:
        held.append(bytearray(MIB))
except MemoryError:
    pass
print(json.dumps(limit.total_bytes - rss_bytes()))
"""
    assert 0 <= run_python(SCRIPT + script) <= 8 * MIB


@pytest.mark.needs_proc
def test_lift_restores_what_was_there(run_python: Callable[..., Any]) -> None:
    """However often the cap was set anew, lifting it brings back the limit from before the first."""
    script = """
own = 64 * 2**30
resource.setrlimit(resource.RLIMIT_DATA, (own, current()[1]))
before = current()
limit = MemoryLimit()
limit.lift()
unchanged = current() == before
limit.set(rss_bytes() + 128 * MIB)
first = current()
limit.set(rss_bytes() + 256 * MIB)
second = current()
limit.lift()
lifted = [current() == before, limit.total_bytes]
limit.lift()
print(json.dumps([
    unchanged, first[0] < second[0] < own, first[1] == before[1], *lifted, current() == before,
    len(bytearray(512 * MIB)),
]))
"""
    assert [True, True, True, True, None, True, 512 * MIB] == run_python(SCRIPT + script)


@pytest.mark.needs_proc
def test_refusals_change_nothing(run_python: Callable[..., Any]) -> None:
    """A cap below what is held, above the hard limit, or past all reason is refused, with why."""
    script = """
resource.setrlimit(resource.RLIMIT_DATA, (64 * 2**30, 64 * 2**30))
before = current()
limit = MemoryLimit()
said = []
for size in (1, rss_bytes() - MIB, 2**40, 2**80):
    try:
        limit.set(size)
    except ValueError as error:
        said.append(re.sub(r"[0-9.]+ [KMGT]?i?B", "N", str(error)))
print(json.dumps([said, current() == before, limit.total_bytes]))
"""
    held = "expected more than N, which this process already holds"
    most = "expected less; this process may hold N of data at most"
    said = [f"invalid value 'N': {expected}" for expected in (held, held, most, most)]
    assert [said, True, None] == run_python(SCRIPT + script)


@pytest.mark.needs_proc
def test_more_than_the_kernel_can_count(run_python: Callable[..., Any]) -> None:
    """A cap that no limit of the kernel can express is refused as a wrong size."""
    script = """
try:
    MemoryLimit().set(2**80)
except ValueError as error:
    print(json.dumps(str(error)))
"""
    assert "invalid value '1099511627776.0 TiB': expected a size that a process can have" == run_python(
        SCRIPT + script
    )


def test_other_platforms_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the platform has no such limit, the error names it."""
    monkeypatch.setattr(sys, "platform", "darwin")
    limit = MemoryLimit()
    with pytest.raises(ValueError, match=r"^only Linux has .*, and this is darwin$"):
        limit.set(2**40)
    limit.lift()
    assert None is limit.total_bytes


@pytest.mark.needs_proc
def test_children_do_not_inherit_it(run_python: Callable[..., Any]) -> None:
    """A fork, and a program that was started, have the limit from before at once."""
    script = """
import os, subprocess
before = current()
limit = MemoryLimit()
limit.set(rss_bytes() + 128 * MIB)
reading, writing = os.pipe()
child = os.fork()
if not child:
    os.write(writing, json.dumps(current()).encode())
    os._exit(0)
os.waitpid(child, 0)
forked = json.loads(os.read(reading, 100))
tells = "import resource; print(resource.getrlimit(resource.RLIMIT_DATA))"
said = subprocess.check_output([sys.executable, "-c", tells], text=True)
limit.lift()
print(json.dumps([forked == list(before), eval(said) == before]))
"""
    assert [True, True] == run_python(SCRIPT + script)
