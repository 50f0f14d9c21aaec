"""What every test may lean on: proof that nothing is left behind, named skips, and other processes."""

from __future__ import annotations

import contextlib
import functools
import gc
import json
import os
import signal
import subprocess
import sys
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from needs import NEEDS
from pytest_imu.core.meter import measure
from steadying import map_files_again, no_large_holes
from warm import Template, kept_template

HERE = Path(__file__).resolve().parent
DESCRIPTORS = Path("/proc/self/fd")
TASKS = Path("/proc/self/task")
CHILD_LIMIT_S = 60
"""After this a forked child that hangs is ended by the kernel, and its test fails."""
PYTEST = ([sys.executable, "-mpytest"], [sys.executable, "-m", "pytest"])
"""How a run of pytest begins, as pytester and as people start one."""
SLOW = ("needs_valgrind", "needs_chromium", "needs_fork")
"""Markers of files that take long."""
FORKS_BESIDE_THREADS = "ignore:This process .* is multi-threaded, use of fork:DeprecationWarning"
"""What Python 3.12 and newer warn of in a worker of xdist's, say: it has a thread. Where warnings are
errors, 3.15 raises it with the child already there. The children of these tests need no lock of a
thread's, and most start another program at once."""


def pytest_configure(config: pytest.Config) -> None:
    """Declare the markers, and let bytecode be kept: else each worker rewrites all assertions anew."""
    if os.environ.pop("PYTHONDONTWRITEBYTECODE", None):
        sys.dont_write_bytecode = False
    for name, (_, reason) in NEEDS.items():
        config.addinivalue_line("markers", f"{name}: skips the test where {reason}")
    if hasattr(config, "workerinput") and [HERE] == [Path(arg).resolve() for arg in config.args]:
        begin_elsewhere(config, int(config.workerinput["workerid"].removeprefix("gw")))


def begin_elsewhere(config: pytest.Config, worker: int) -> None:
    """Let each worker begin to collect the suite in another folder; its tests are sorted in the end.

    In a new checkout each file's assertions are rewritten then by one worker, and not by all at once.
    """
    parts = sorted([*HERE.glob("test_*.py"), *filter(Path.is_dir, HERE.iterdir())])
    first = worker * len(parts) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    config.args[:] = [str(part) for part in (*parts[first:], *parts[:first])]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object:
    """Give whole files to the workers, since some files' tests share a kernel or a run that is slow."""
    if config.getoption("dist") != "load":
        return None
    from xdist.scheduler import LoadFileScheduling

    config.option.loadscopereorder = False  # they come in a better order already
    scheduling = LoadFileScheduling(config, log)
    scheduling._split_scope = unit_of  # the one method in which xdist's schedulers of this kind differ
    return scheduling


def unit_of(nodeid: str) -> str:
    """Return what one worker gets as a whole: the test's file, or all files that use hypothesis.

    hypothesis takes 3 s of processor time to begin, in each process anew.
    """
    file = nodeid.partition("::")[0]
    return "hypothesis" if uses_hypothesis(file) else file


@functools.cache
def uses_hypothesis(file: str) -> bool:
    """Say whether *file*, relative to the root folder, imports hypothesis."""
    return "\nfrom hypothesis import" in (HERE.parent / file).read_text(encoding="utf-8")


def put_slow_files_first(items: list[pytest.Item]) -> None:
    """Let workers begin with what takes long, so that none is left with it when all else is done."""
    tests = Counter(item.path for item in items)
    slow = {item.path for item in items if any(map(item.get_closest_marker, SLOW))}
    items.sort(key=lambda item: (item.path not in slow, -tests[item.path], item.path))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what this machine cannot run; each need is tried once, and only where a test has it.

    What needs to fork may do so beside threads.
    """
    if hasattr(config, "workerinput"):
        put_slow_files_first(items)
    reasons: dict[str, str | None] = {}
    for item in items:
        if item.get_closest_marker("needs_fork"):
            item.add_marker(pytest.mark.filterwarnings(FORKS_BESIDE_THREADS))
        for name in {marker.name for marker in item.iter_markers()} & NEEDS.keys():
            if name not in reasons:
                is_met, reason = NEEDS[name]
                reasons[name] = None if is_met() else reason
            if lacking := reasons[name]:
                item.add_marker(pytest.mark.skip(reason=f"{name}: {lacking}"))


def pytest_collection_finish() -> None:
    """Let garbage collections leave out what was imported and collected by now: 0.1 s each time."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Show hypothesis all objects: it looks for who holds the generators that it seeds, or warns."""
    if not getattr(getattr(item, "obj", None), "is_hypothesis_test", False):
        return (yield)
    gc.unfreeze()
    try:
        return (yield)
    finally:
        gc.freeze()


def open_descriptors() -> dict[str, str]:
    """Return this process's descriptors and what they point at; none where there is no /proc."""
    pointing = {}
    for name in os.listdir(DESCRIPTORS) if DESCRIPTORS.exists() else ():  # noqa: PTH208 - twice a test
        with contextlib.suppress(FileNotFoundError):  # the one that listed the others
            pointing[name] = os.readlink(f"{DESCRIPTORS}/{name}")  # noqa: PTH115 - as above
    return pointing


def child_processes() -> list[str]:
    """Return the ids of this process's children, ended or not."""
    if not hasattr(os, "waitid"):
        return []
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return []  # one system call, and the usual case
    lists = TASKS.glob("*/children")
    named = sorted(pid for one in lists for pid in one.read_text(encoding="ascii").split())
    return named or ["one that this kernel does not name"]


@pytest.fixture(autouse=True, scope="session")
def peak_source_is_chosen() -> None:
    """Choose the process's peak source before any test, since it keeps one descriptor on purpose."""
    with measure():
        pass


@pytest.fixture(autouse=True)
def nothing_left_behind(peak_source_is_chosen: None) -> Iterator[None]:  # noqa: ARG001 - comes first
    """Prove after each test that it left no sampler, no child process and no open descriptor."""
    descriptors, children = open_descriptors(), child_processes()
    yield
    assert [] == [thread for thread in threading.enumerate() if thread.name == "imu-sampler"]
    assert children == child_processes()
    assert descriptors == open_descriptors()


@pytest.fixture(autouse=True)
def only_named_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let runs of pytest inside these tests load what they name, and nothing else that is installed."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    for name in ("PYTEST_ADDOPTS", "CI", "BUILD_NUMBER"):  # on CI pytest's summary is another one
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def template() -> Iterator[Template | None]:
    """Keep one process that whole runs of pytest are forked from, where a process can fork."""
    with kept_template({**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}) as template:
        yield template


@pytest.fixture
def pytester(
    pytester: pytest.Pytester, template: Template | None, monkeypatch: pytest.MonkeyPatch
) -> pytest.Pytester:
    """Let its runs of pytest be forks, unless the environment is of a kind that needs a new process."""
    popen = pytester.popen

    def started(command: Sequence[str], stdout: Any, stderr: Any, **more: Any) -> Any:
        begin = next((begin for begin in PYTEST if begin == [*command[: len(begin)]]), None)
        takes_files = hasattr(stdout, "fileno") and hasattr(stderr, "fileno")
        if template is None or begin is None or not takes_files or not template.serves(os.environ):
            return popen(command, stdout, stderr, **more)
        arguments = command[len(begin) :]
        return template.start(arguments, stdout, stderr, folder=Path.cwd(), environment=os.environ)

    monkeypatch.setattr(pytester, "popen", started)
    return pytester


@pytest.fixture
def steady_memory() -> Iterator[None]:
    """Let nothing move this process's memory while a test measures it but the test.

    Garbage of earlier tests is collected first. Machines that page out what has been cold for a minute
    have taken away the code that this process has not used since: it is mapped again. And glibc serves
    even large blocks from the holes that earlier tests left in its heap: they are taken, untouched.
    """
    gc.collect()
    gc.disable()
    map_files_again()
    with no_large_holes():
        yield
    gc.enable()


@pytest.fixture
def interrupts_are_heard() -> Iterator[None]:
    """Undo what a shell does to a job in the background: all that it starts would ignore SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def in_fork() -> Callable[[Callable[[], object]], Any]:
    """Return a function that runs a function in a forked child and returns what it returned."""
    return call_in_fork


def call_in_fork(function: Callable[[], object]) -> Any:
    """Run *function* in a forked child, which sends its result through a pipe, as JSON."""
    receiving, sending = os.pipe()
    with warnings.catch_warnings():
        # Python 3.12 and newer warn of threads; what these children do is right with them.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        answer: dict[str, object] = {"raised": "the child was ended"}
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(CHILD_LIMIT_S)
            answer = {"returned": function()}
        except BaseException as error:  # noqa: BLE001 - the child must never come back to pytest
            answer = {"raised": repr(error)}
        finally:
            os.write(sending, json.dumps(answer).encode())
            os._exit(0)
    os.close(sending)
    with os.fdopen(receiving, encoding="utf-8") as answers:
        text = answers.read()
    _, status = os.waitpid(child, 0)
    assert 0 == status
    answer = json.loads(text)
    assert {"returned"} == answer.keys(), answer
    return answer["returned"]


@pytest.fixture(scope="session")
def run_python() -> Callable[..., Any]:
    """Return a function that runs a script in a fresh interpreter and returns what it printed."""
    return run_script


def run_script(script: str, *arguments: str) -> Any:
    """Run *script* in a fresh interpreter, in which warnings are errors; it prints one JSON value."""
    command = [sys.executable, "-W", "error", "-c", script, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert (0, "") == (done.returncode, done.stderr)
    return json.loads(done.stdout)
