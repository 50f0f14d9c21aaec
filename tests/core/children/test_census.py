"""The census of children, over real ones: programs that wait on a pipe, forks, zombies."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from pytest_imu.core.children import census as children
from pytest_imu.core.children.census import Census

DONE = [sys.executable, "-S", "-c", ""]
WAITING = [sys.executable, "-S", "-c", "import sys; print(flush=True); sys.stdin.read()"]
pytestmark = pytest.mark.needs_proc


@contextmanager
def waiting_program() -> Iterator[subprocess.Popen[bytes]]:
    """Start a program that has begun, and ends with the block."""
    with subprocess.Popen(WAITING, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as program:
        assert program.stdout is not None
        assert b"\n" == program.stdout.readline()
        yield program


@contextmanager
def zombie() -> Iterator[int]:
    """Fork a child that has ended and is waited for only when the block ends."""
    child = forked()
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    try:
        yield child
    finally:
        os.waitpid(child, 0)


def forked() -> int:
    """Fork a child that ends at once."""
    child = os.fork()
    if child == 0:
        os._exit(0)
    return child


def had_children(census: Census, block: Callable[[], object]) -> bool | None:
    """Return what the census says of a block."""
    start = census.begin()
    block()
    return census.had_children(start)


def test_block_without_children_reads_little() -> None:
    """Each end asks once for children and once for the usage, and lists nobody."""
    calls: list[str] = []

    def any_children() -> bool:
        calls.append("any")
        return False

    def list_children() -> frozenset[int]:
        calls.append("list")
        return frozenset()

    def read_usage() -> int:
        calls.append("usage")
        return 0

    census = Census(any_children=any_children, list_children=list_children, read_usage=read_usage)
    assert False is had_children(census, lambda: None)
    assert ["any", "any", "usage", "usage"] == sorted(calls)


def test_child_that_lives_throughout_is_not_the_blocks() -> None:
    """What others started before, and end later, is no child of this block."""
    with waiting_program():
        assert False is had_children(Census(), lambda: None)


def test_child_that_starts_and_lives_on() -> None:
    """A child that is alive at the end, and was not at the beginning, is one of the block's."""
    census = Census()
    start = census.begin()
    with waiting_program():
        assert True is census.had_children(start)


def test_child_that_ends() -> None:
    """A child that was there at the beginning and ended is one of the block's."""
    census = Census()
    with waiting_program() as program:
        start = census.begin()
        program.communicate()
        assert True is census.had_children(start)


@pytest.mark.parametrize(
    "start_one",
    [
        lambda: subprocess.run(DONE, check=True),
        lambda: os.waitpid(os.posix_spawn(sys.executable, DONE, os.environ), 0),
        lambda: os.waitpid(forked(), 0),
    ],
    ids=["subprocess", "posix_spawn", "fork"],
)
@pytest.mark.needs_fork
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_child_that_came_and_went(start_one: Callable[[], object]) -> None:
    """Whatever started it, a child that was waited for in the block is one of the block's."""
    assert True is had_children(Census(), start_one)


@pytest.mark.needs_fork
def test_child_that_died_and_was_not_waited_for() -> None:
    """A zombie that was born in the block has lived in it."""
    census = Census()
    start = census.begin()
    with zombie():
        assert True is census.had_children(start)


def test_helpers_do_not_count() -> None:
    """A process that measuring has started is no child of the test's."""
    helpers: set[int] = set()
    census = Census(helpers=helpers)
    start = census.begin()
    with waiting_program() as program:
        helpers.add(program.pid)
        assert False is census.had_children(start)
        assert False is had_children(census, lambda: None)


def test_multiprocessings_own_processes_do_not_count(run_python: Callable[..., Any]) -> None:
    """The resource tracker and the fork server live on, and are nobody's; what that one forks counts."""
    told, at_samples = run_python("""
import json, multiprocessing, time
from multiprocessing import forkserver, resource_tracker
from pytest_imu.core.children.census import Census
from pytest_imu.core.children.sampler import choose_reader

def starts_child(start):
    begun = census.begin()
    start()
    at_samples.append(len(list(choose_reader()())))
    return census.had_children(begun)

def process(seconds):
    child = multiprocessing.get_context("forkserver").Process(target=time.sleep, args=(seconds,))
    child.start()
    return child

census, at_samples, child = Census(), [], None
told = [
    starts_child(resource_tracker.ensure_running),
    starts_child(forkserver.ensure_running),
    starts_child(lambda: process(0).join()),
    starts_child(lambda: None),
    starts_child(lambda: globals().update(child=process(60))),
    starts_child(lambda: (child.terminate(), child.join())),
]
print(json.dumps([told, at_samples]))
""")
    assert [False, False, True, False, True, True] == told
    assert [0, 0, 0, 0, 1, 0] == at_samples


@pytest.mark.needs_fork
def test_blocks_nest_and_overlap() -> None:
    """Each block is told from its own beginning."""
    census = Census()
    outer = census.begin()
    os.waitpid(forked(), 0)
    inner = census.begin()
    assert (True, False) == (census.had_children(outer), census.had_children(inner))
    os.waitpid(forked(), 0)
    assert True is census.had_children(inner)


def test_children_of_other_threads_are_listed() -> None:
    """Whichever thread started it, a child is one of the process's."""
    census = Census()
    start = census.begin()
    entered: list[Any] = []
    context = waiting_program()
    thread = threading.Thread(target=lambda: entered.append(context.__enter__()))
    thread.start()
    thread.join()
    try:
        assert entered[0].pid in children.list_children()
        assert True is census.had_children(start)
    finally:
        context.__exit__(None, None, None)


@pytest.mark.needs_fork
def test_forked_child_does_not_know(in_fork: Callable[[Callable[[], object]], Any]) -> None:
    """In a forked child the parent's children say nothing, and its own block has none."""
    census = Census()
    with waiting_program():
        start = census.begin()
        answers = in_fork(lambda: [had_children(census, lambda: None), census.had_children(start)])
    assert [False, None] == answers


@pytest.mark.parametrize("end", ["begin", "end"])
def test_refused_reading_is_unknown(end: str) -> None:
    """Where the children cannot be listed it is not known, which is not no."""
    answers = ["refused", "none"] if end == "begin" else ["none", "refused"]

    def listed() -> frozenset[int]:
        if answers.pop(0) == "refused":
            raise PermissionError("no")
        return frozenset()

    census = Census(any_children=lambda: True, list_children=listed)
    assert None is had_children(census, lambda: None)


def test_platform_that_cannot_be_asked_does_not_know() -> None:
    """Where there is no quick way to ask (Windows) it is not known."""

    def refuse() -> bool:
        raise OSError

    assert None is had_children(Census(any_children=refuse), lambda: None)


def test_process_has_one_census() -> None:
    """The set of helpers is the process's own."""
    assert children.process_census() is children.process_census()
    assert children.helper_pids() is children.helper_pids()
