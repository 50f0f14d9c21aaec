"""The memory of descendants, over real ones that wait on pipes, and over scripted /proc trees."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from pytest_imu.core.children import sampler as descendants
from pytest_imu.core.children.sampler import ChildrenSampler, Memory, ProcReader
from pytest_imu.core.model import ChildrenMemory

MIB = 2**20
HELD_MIB = 64
PYTHON_MIB = 16
"""More than a bare Python's own memory."""
A_MINUTE_S = 60.0
LIMIT_S = 30.0
HOLDER = f"""
import subprocess, sys
held = b"x" * ({HELD_MIB} * 2**20)
if sys.argv[1:]:
    below = subprocess.Popen([sys.executable, "-S", "-c", *sys.argv[1:]], stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE)
    below.stdout.readline()
print(below.pid if sys.argv[1:] else 0, flush=True)
sys.stdin.read()
if sys.argv[1:]:
    below.communicate()
"""
SHARES = """
import json
import os
import sys

from pytest_imu.core.children.sampler import ProcReader

held = b"x" * int(sys.argv[1])
receiving, sending = os.pipe()
child = os.fork()
if child == 0:
    os.read(receiving, 1)
    os._exit(0)
(memory,) = ProcReader(helpers=set())()
os.write(sending, b"x")
os.waitpid(child, 0)
print(json.dumps([memory.size_bytes, memory.is_pss]))
"""
"""Run by itself: what a process that has run other tests shares with a child has no bound."""
pytestmark = pytest.mark.needs_proc


class Holder:
    """A program that holds 64 MiB until it is told to end, and may have one below it that does too."""

    def __init__(self, *below: str) -> None:
        command = [sys.executable, "-S", "-c", HOLDER, *below]
        self.program = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.program.stdout is not None
        self.below_pid = int(self.program.stdout.readline())
        self.pid = self.program.pid

    def end(self) -> None:
        """End it, and wait for it."""
        self.program.communicate()


@contextmanager
def holding(*below: str) -> Iterator[Holder]:
    """Start a program that holds memory as long as the block runs."""
    holder = Holder(*below)
    try:
        yield holder
    finally:
        if holder.program.returncode is None:
            holder.end()


def size_mib(read: Iterable[Memory]) -> float:
    """Return the sum in MiB."""
    return sum(memory.size_bytes for memory in read) / MIB


def test_no_children_is_none_of_their_memory() -> None:
    """Where there are no descendants their memory is 0, and that is known."""
    sampler = ChildrenSampler(ProcReader(), interval_s=A_MINUTE_S)
    sampler.start()
    expected = ChildrenMemory(peak_bytes=0, most=0, samples=2, unit="pss")
    assert expected == sampler.stop()


def test_children_and_grandchildren_add_up() -> None:
    """All descendants count, with all the memory that is theirs alone."""
    with holding(HOLDER), holding():
        read = list(ProcReader(helpers=set())())
    assert 3 == len(read)
    assert all(memory.is_pss for memory in read)
    assert 3 * HELD_MIB <= size_mib(read) < 3 * (HELD_MIB + PYTHON_MIB)


def test_peak_outlives_the_child() -> None:
    """A child that has ended by the last sample is in the peak of an earlier one."""
    sampler = ChildrenSampler(ProcReader(helpers=set()), interval_s=A_MINUTE_S)
    with holding():
        sampler.start()
    memory = sampler.stop()
    assert memory.peak_bytes is not None
    assert HELD_MIB * MIB <= memory.peak_bytes < (HELD_MIB + PYTHON_MIB) * MIB
    assert (1, 2, "pss", None) == (memory.most, memory.samples, memory.unit, memory.reason)


def test_thread_sees_what_both_ends_do_not() -> None:
    """A child that comes and goes inside the window is seen by the sampler's thread."""
    seen = threading.Event()
    reader = ProcReader(helpers=set())

    def read() -> list[Memory]:
        found = list(reader())
        if size_mib(found) > HELD_MIB:
            seen.set()
        return found

    sampler = ChildrenSampler(read, interval_s=0.0001)
    sampler.start()
    with holding():
        assert seen.wait(timeout=LIMIT_S)
    memory = sampler.stop()
    assert memory.peak_bytes is not None
    assert HELD_MIB * MIB <= memory.peak_bytes


@pytest.mark.needs_fork
def test_memory_shared_with_the_parent_counts_by_share(run_python: Callable[..., Any]) -> None:
    """A forked child that touches nothing has half of what it shares with its parent."""
    size_bytes, is_pss = run_python(SHARES, str(HELD_MIB * MIB))
    assert is_pss
    assert HELD_MIB / 2 <= size_bytes / MIB < HELD_MIB / 2 + PYTHON_MIB


@pytest.mark.needs_fork
def test_zombie_does_not_count(in_fork: Callable[[Callable[[], object]], Any]) -> None:
    """A child that has ended and was not waited for has no memory, and is not alive."""

    def read_zombie() -> list[list[Memory]]:
        child = os.fork()
        if child == 0:
            os._exit(0)
        os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
        found = [list(ProcReader()()), list(descendants.read_with_psutil(set()))]
        os.waitpid(child, 0)
        return found

    assert [[], []] == in_fork(read_zombie)


@pytest.mark.parametrize("below", [(), (HOLDER,)])
def test_helpers_and_theirs_do_not_count(below: tuple[str, ...]) -> None:
    """What measuring has started is left out with all its descendants, by either way to read."""
    with holding(*below) as helper, holding():
        for read in (
            ProcReader(helpers={helper.pid})(),
            descendants.read_with_psutil({helper.pid}),
        ):
            found = list(read)
            assert 1 == len(found)
            assert HELD_MIB <= size_mib(found) < HELD_MIB + PYTHON_MIB


def test_child_that_dies_while_it_is_read_counts_nothing() -> None:
    """Its directory was open and it was alive; then it is gone, which is no error."""
    with holding() as dying, holding():

        class Deadly(ProcReader):
            """Ends the one before its memory is read."""

            def memory(self, directory: int) -> Memory:
                """Read as always, after the end."""
                if dying.program.returncode is None:
                    dying.end()
                    with pytest.raises(ProcessLookupError):
                        super().memory(own_directory)
                return super().memory(directory)

        own_directory = os.open(f"/proc/{dying.pid}", os.O_RDONLY)
        sampler = ChildrenSampler(Deadly(helpers=set()), interval_s=A_MINUTE_S)
        sampler.start()
        memory = sampler.stop()
        os.close(own_directory)
    assert (1, 2, None) == (memory.most, memory.samples, memory.reason)
    assert memory.peak_bytes is not None
    assert HELD_MIB * MIB <= memory.peak_bytes < (HELD_MIB + PYTHON_MIB) * MIB


class Tree:
    """A scripted /proc."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.process("self", parent=1)

    def process(self, name: str, *, parent: int, children: str = "", state: str = "S") -> Path:
        """Add a process of 3 KiB of PSS and two pages of RSS."""
        directory = self.root / name
        (directory / "task/1").mkdir(parents=True)
        stat = f"1 (odd ) Z 1) {state} {parent} {'0 ' * 17}5 0"
        texts = {
            "task/1/children": children,
            "stat": stat,
            "smaps_rollup": "0-1 [rollup]\nRss: 9 kB\nPss:     3 kB\nSwapPss: 7 kB\n",
            "statm": "9 2 1 1 0 1 0",
        }
        for file, text in texts.items():
            (directory / file).write_text(text, encoding="ascii")
        return directory

    def read(self) -> list[Memory]:
        """Read the descendants of this process."""
        return list(ProcReader(str(self.root), helpers=set())())


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """Return a /proc in which this process has the children 70 and 71."""
    tree = Tree(tmp_path)
    (tmp_path / "self/task/1/children").write_text("70 71", encoding="ascii")
    return tree


KIB_3 = Memory(3 * 1024, is_pss=True)


def test_reused_id_does_not_count(tree: Tree) -> None:
    """A listed id that by now is another parent's process is none of ours, nor are its children."""
    tree.process("70", parent=os.getpid())
    tree.process("71", parent=1, children="72")
    tree.process("72", parent=71)
    assert [KIB_3] == tree.read()


def test_child_that_was_listed_and_is_gone_does_not_count(tree: Tree) -> None:
    """A child that dies before its directory is opened is no error."""
    tree.process("71", parent=os.getpid(), children="72")
    tree.process("72", parent=71)
    assert [KIB_3, KIB_3] == tree.read()


def test_kernel_without_pss_gives_rss(tree: Tree) -> None:
    """Where there is no smaps_rollup the sum is of RSS, and the label says what that is."""
    for name in ("70", "71"):
        (tree.process(name, parent=os.getpid()) / "smaps_rollup").unlink()
    (tree.root / "self/smaps_rollup").unlink()
    (tree.root / "70/task/1/children").write_text("72", encoding="ascii")
    (tree.process("72", parent=70, state="Z") / "smaps_rollup").unlink()
    sampler = ChildrenSampler(tree.read, interval_s=A_MINUTE_S)
    sampler.start()
    memory = sampler.stop()
    page_bytes = os.sysconf("SC_PAGE_SIZE")
    assert ChildrenMemory(peak_bytes=4 * page_bytes, most=2, samples=2, unit="rss") == memory
    assert "RSS sum, sampled, an overestimate" == memory.label


def test_without_proc_psutil_is_asked(tmp_path: Path) -> None:
    """A platform without such a /proc adds up RSS, the same as psutil's own."""
    with holding(HOLDER) as holder:
        for pid in (holder.pid, holder.below_pid):
            while psutil.Process(pid).status() != psutil.STATUS_SLEEPING:
                os.sched_yield()  # it has still to begin to wait, and grows until then
        for platform in ("linux", "darwin"):
            found = list(descendants.choose_reader(str(tmp_path), platform)())
            expected = {psutil.Process(pid).memory_info().rss for pid in (holder.pid, holder.below_pid)}
            assert expected == {memory.size_bytes for memory in found}
            assert [False, False] == [memory.is_pss for memory in found]


def test_nothing_read_is_none_with_a_reason() -> None:
    """Where no sample succeeded there is no number."""

    def refuse() -> list[Memory]:
        raise PermissionError("no")

    sampler = ChildrenSampler(refuse, interval_s=A_MINUTE_S)
    sampler.start()
    reason = "children could not be read: PermissionError: no"
    expected = ChildrenMemory(peak_bytes=None, most=None, samples=0, unit="none", reason=reason)
    assert expected == sampler.stop()
    assert "n/a" == expected.label


def test_thread_rests_four_times_its_reading() -> None:
    """A reading that took 1 s is followed by 4 s without; the last one is taken in any case."""
    times_ns = iter([0, 10, 20, 49, 50, 60, 70])
    reads: list[int] = []

    def read() -> list[Memory]:
        reads.append(1)
        return []

    sampler = ChildrenSampler(read, clock_ns=lambda: next(times_ns), interval_s=A_MINUTE_S)
    taken = []
    for _ in range(4):
        sampler._sampler.sample()  # as its thread does
        taken.append(len(reads))
    assert [1, 1, 1, 2] == taken  # at 0, 20, 49 and 50
    assert 3 == sampler.stop().samples


@pytest.mark.parametrize(
    "memory",
    [
        ChildrenMemory(peak_bytes=5, most=1, samples=2, unit="pss"),
        ChildrenMemory(peak_bytes=None, most=None, samples=0, unit="none", reason="no"),
    ],
)
def test_plain_form_can_be_read_back(memory: ChildrenMemory) -> None:
    """The plain form survives JSON."""
    assert memory == ChildrenMemory.from_dict(json.loads(json.dumps(memory.to_dict())))
