"""The census of children, over real ones: programs that wait on a pipe, forks, zombies."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pytest_imu.core.children import census as children
from pytest_imu.core.children.census import Census
from pytest_imu.core.model import ChildrenSeen

DONE = [sys.executable, "-S", "-c", ""]
WAITING = [sys.executable, "-S", "-c", "import sys; print(flush=True); sys.stdin.read()"]
needs_monitoring = pytest.mark.skipif(
    not hasattr(sys, "monitoring"), reason="Python 3.11 has no sys.monitoring to see subprocess start"
)
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


@pytest.fixture
def watched() -> Iterator[Census]:
    """Return a census that sees subprocess start, where this Python can."""
    census = Census(helpers=set())
    census.watch_popen()
    yield census
    census.unwatch_popen()


def test_window_without_children_says_nothing() -> None:
    """Where no child lived there is no remark."""
    census = Census()
    assert None is census.close(census.open())


def test_window_without_children_reads_little() -> None:
    """Each end asks once for children and once for the usage, and lists nobody."""
    calls: list[str] = []

    def any_children() -> bool:
        calls.append("any")
        return False

    def list_children() -> children.Children:
        calls.append("list")
        return {}

    def read_usage() -> int:
        calls.append("usage")
        return 0

    census = Census(any_children=any_children, list_children=list_children, read_usage=read_usage)
    assert None is census.close(census.open())
    assert ["any", "usage"] * 2 == calls


def test_child_that_lives_throughout_is_counted() -> None:
    """A child that a fixture started is left out of the test's numbers too."""
    census = Census()
    with waiting_program():
        assert ChildrenSeen(count=1) == census.close(census.open())


def test_child_born_in_the_window_is_counted() -> None:
    """A child that is alive at the end is counted exactly, on every Python."""
    census = Census()
    start = census.open()
    with waiting_program(), waiting_program():
        assert ChildrenSeen(count=2) == census.close(start)


@needs_monitoring
def test_programs_that_came_and_went_are_counted(watched: Census) -> None:
    """Two subprocess.run in a test are two children, though neither end of the window sees them."""
    start = watched.open()
    subprocess.run(DONE, check=True)
    subprocess.run(DONE, check=True)
    assert ChildrenSeen(count=2) == watched.close(start)


def test_programs_that_nobody_saw_start_are_at_least_one() -> None:
    """Without sys.monitoring the kernel still tells that somebody was waited for."""
    census = Census()
    start = census.open()
    subprocess.run(DONE, check=True)
    subprocess.run(DONE, check=True)
    assert ChildrenSeen(count=1, at_least=True) == census.close(start)


def test_program_started_beside_the_counters_is_at_least_one(watched: Census) -> None:
    """What os.posix_spawn starts is not counted by any hook, and not lost either."""
    start = watched.open()
    os.waitpid(os.posix_spawn(sys.executable, DONE, os.environ), 0)
    assert ChildrenSeen(count=1, at_least=True) == watched.close(start)


@pytest.mark.needs_fork
def test_forks_that_came_and_went_are_counted(watched: Census) -> None:
    """Forks are counted on every Python; where subprocess is not seen, there may have been more."""
    start = watched.open()
    for _ in range(3):
        os.waitpid(forked(), 0)
    expected = ChildrenSeen(count=3, at_least=not hasattr(sys, "monitoring"))
    assert expected == watched.close(start)


@pytest.mark.needs_fork
def test_children_of_all_kinds_add_up(watched: Census) -> None:
    """One that was there, one that stays and one that came and went are three."""
    with waiting_program():
        start = watched.open()
        with waiting_program():
            os.waitpid(forked(), 0)
            assert ChildrenSeen(count=3, at_least=not hasattr(sys, "monitoring")) == watched.close(start)


@pytest.mark.needs_fork
def test_zombie_does_not_count() -> None:
    """A child that was dead before the window neither lives in it nor, waited for in it, has lived."""
    census = Census()
    with zombie():
        assert None is census.close(census.open())
        start = census.open()
    assert None is census.close(start)


@pytest.mark.needs_fork
def test_child_that_died_in_the_window_counts() -> None:
    """A child that was born in the window and is a zombie at its end has lived in it."""
    census = Census()
    start = census.open()
    with zombie():
        assert ChildrenSeen(count=1) == census.close(start)


def test_child_that_was_there_and_ended_counts_once(watched: Census) -> None:
    """That it was waited for makes it no second child."""
    with waiting_program() as program:
        start = watched.open()
        program.communicate()
    seen = watched.close(start)
    assert ChildrenSeen(count=1, at_least=not hasattr(sys, "monitoring")) == seen


def test_helpers_do_not_count() -> None:
    """A process that measuring has started is no child of the test's: alive, born or ended."""
    helpers: set[int] = set()
    census = Census(helpers=helpers)
    start = census.open()
    with waiting_program() as program:
        helpers.add(program.pid)
        assert None is census.close(start)
        assert None is census.close(census.open())
        start = census.open()
    helpers.clear()
    assert None is census.close(start)


@pytest.mark.needs_fork
def test_helper_that_starts_in_the_window_is_taken_off() -> None:
    """Its start is seen like any other, and is not one of the test's."""
    helpers: set[int] = set()
    census = Census(helpers=helpers)
    start = census.open()
    with zombie() as helper:
        helpers.add(helper)
        for _ in range(2):
            os.waitpid(forked(), 0)
        assert ChildrenSeen(count=2, at_least=True) == census.close(start)


@pytest.mark.needs_fork
def test_platform_that_lists_no_children_counts_what_it_sees() -> None:
    """Without os.waitid those count that start or end, and there may have been more."""
    census = Census(any_children=None)
    assert None is census.close(census.open())
    start = census.open()
    with zombie():
        assert ChildrenSeen(count=1, at_least=True) == census.close(start)


def test_reused_id_is_another_child() -> None:
    """A child under an id that another had before is told apart by its birth."""
    listed = [{(70, 1.0): False}, {(70, 2.0): False}]
    usages = [0, 1]
    census = Census(
        any_children=lambda: True,
        list_children=lambda: listed.pop(0),
        read_usage=lambda: usages.pop(0),
    )
    seen = census.close(census.open())
    assert seen is not None
    assert 2 == seen.count


def test_id_of_another_parent_is_no_child(tmp_path: Path) -> None:
    """A listed child that is gone, or whose id another process has by now, is left out."""
    threads = {"5": "70 71", "6": "72 73"}
    for thread, listed in threads.items():
        (tmp_path / "self/task" / thread).mkdir(parents=True)
        (tmp_path / "self/task" / thread / "children").write_text(listed, encoding="ascii")
    (tmp_path / "self/task/7").mkdir()  # a thread that has ended
    for pid, state, parent in [(70, "S", os.getpid()), (72, "S", 1), (73, "Z", os.getpid())]:
        (tmp_path / str(pid)).mkdir()
        fields = f"{pid} (a) S 1) {state} {parent} {'0 ' * 17}900 0"
        (tmp_path / str(pid) / "stat").write_text(fields, encoding="ascii")
    assert {(70, 900.0): False, (73, 900.0): True} == children.list_from_proc(str(tmp_path))


@pytest.mark.needs_fork
def test_both_lists_agree() -> None:
    """/proc and psutil name the same children and the same zombies, those of other threads too."""
    with waiting_program() as program, zombie() as dead:
        expected = {program.pid: False, dead: True}
        from_thread: list[children.Children] = []
        thread = threading.Thread(target=lambda: from_thread.append(children.list_from_proc()))
        thread.start()
        thread.join()
        for listed in (children.list_from_proc(), children.list_from_psutil(), *from_thread):
            assert expected == {pid: is_zombie for (pid, _), is_zombie in listed.items()}


def test_list_falls_back_on_psutil(tmp_path: Path) -> None:
    """A kernel that lists no children in /proc leaves it to psutil."""
    assert children.list_from_psutil is children.choose_children_list(str(tmp_path))


@pytest.mark.needs_fork
def test_windows_nest_and_overlap(watched: Census) -> None:
    """Each window counts from its own beginning."""
    outer = watched.open()
    os.waitpid(forked(), 0)
    inner = watched.open()
    os.waitpid(forked(), 0)
    first = watched.close(outer)
    os.waitpid(forked(), 0)
    second = watched.close(inner)
    at_least = not hasattr(sys, "monitoring")
    assert [ChildrenSeen(count=2, at_least=at_least)] * 2 == [first, second]


@pytest.mark.needs_fork
def test_forked_child_begins_with_no_children(in_fork: Callable[[Callable[[], object]], Any]) -> None:
    """In a forked child neither the parent's children nor the parent's window count."""
    census = Census()
    subprocess.run(DONE, check=True)
    with waiting_program():
        start = census.open()

        def count_in_child() -> list[object]:
            own, parents = census.close(census.open()), census.close(start)
            return [own, None if parents is None else [parents.count, parents.reason]]

        assert [None, [None, "the window was opened before a fork"]] == in_fork(count_in_child)


@pytest.mark.parametrize("end", ["open", "close"])
def test_refused_reading_is_unknown(end: str) -> None:
    """Where the children cannot be listed their number is unknown, which is not none."""
    answers: list[Any] = [{}, {}]  # Any: the lists, and what stands for a refusal

    def listed() -> children.Children:
        answer = answers.pop(0)
        if answer == "refused":
            message = "no"
            raise PermissionError(message)
        return {}

    answers[0 if end == "open" else 1] = "refused"
    census = Census(any_children=lambda: True, list_children=listed)
    seen = census.close(census.open())
    assert ChildrenSeen(count=None, reason="PermissionError: no") == seen


@needs_monitoring
def test_watching_ends_though_popen_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """A suite that puts its own Popen there is neither watched nor in the way."""
    monitoring: Any = sys.monitoring  # type: ignore[attr-defined,unused-ignore]  # new in 3.12
    tools = [monitoring.get_tool(tool) for tool in range(6)]
    census = Census()
    assert census.watch_popen()
    monkeypatch.setattr(subprocess, "Popen", object)
    census.unwatch_popen()
    assert not census.watch_popen()
    assert tools == [monitoring.get_tool(tool) for tool in range(6)]


@needs_monitoring
def test_watching_is_no_tracer_and_leaves_nothing() -> None:
    """It takes an id that is nobody's, switches one function's event on, and gives all of it back."""
    monitoring: Any = sys.monitoring  # type: ignore[attr-defined,unused-ignore]  # new in 3.12
    tools = [monitoring.get_tool(tool) for tool in range(6)]
    tracer = sys.gettrace()
    census = Census()
    assert census.watch_popen()
    assert not census.watch_popen()
    used = [tool for tool in range(6) if monitoring.get_tool(tool) != tools[tool]]
    assert used[0] in {3, 4}
    assert children.TOOL_NAME == monitoring.get_tool(used[0])
    assert 1 == len(used)
    assert 0 == monitoring.get_events(used[0])
    assert tracer is sys.gettrace()
    census.unwatch_popen()
    census.unwatch_popen()
    monitoring.use_tool_id(used[0], "the next one")
    code = subprocess.Popen._execute_child.__code__  # type: ignore[attr-defined]  # it is private
    assert 0 == monitoring.get_local_events(used[0], code)
    monitoring.free_tool_id(used[0])
    assert tools == [monitoring.get_tool(tool) for tool in range(6)]


@pytest.mark.skipif(hasattr(sys, "monitoring"), reason="this Python has sys.monitoring")
def test_watching_needs_monitoring() -> None:
    """Python 3.11 has nothing to watch with, and the count stays "or more"."""
    census = Census()
    assert not census.watch_popen()
    census.unwatch_popen()


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        (ChildrenSeen(count=1), "1 child not counted"),
        (ChildrenSeen(count=2), "2 children not counted"),
        (ChildrenSeen(count=1, at_least=True), "1 or more children not counted"),
        (ChildrenSeen(count=3, at_least=True), "3 or more children not counted"),
        (ChildrenSeen(count=None, reason="OSError: no"), "children not known: OSError: no"),
    ],
)
def test_words(seen: ChildrenSeen, expected: str) -> None:
    """The row's remark is made in one place."""
    assert expected == seen.words


def test_process_has_one_census() -> None:
    """The hook on os.fork and the set of helpers are the process's own."""
    assert children.process_census() is children.process_census()
    assert children.helper_pids() is children.helper_pids()
