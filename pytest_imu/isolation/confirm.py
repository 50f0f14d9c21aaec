"""Runs a test once more, alone in a clean process, where its verdict is in doubt: the session's side."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable

import pytest

from pytest_imu.core.alone import Alone
from pytest_imu.core.counters.callgrind.command import running_tool
from pytest_imu.core.units import NANOSECONDS_PER_SECOND
from pytest_imu.isolation.channel import Message
from pytest_imu.isolation.clean_child import CleanChild
from pytest_imu.isolation.file_pages import resident_file_pages
from pytest_imu.isolation.forkserver import EndsForkServer, ForkServer
from pytest_imu.isolation.messages import flush_output
from pytest_imu.isolation.native_threads import in_words, unsafe_threads
from pytest_imu.isolation.same_process import run_here
from pytest_imu.isolation.timeouts import timeouts_paused
from pytest_imu.markers import NO_RERUN

LEAST_LIMIT_S = 30
TIMES_THE_FIRST = 10
"""How much longer than the first run the second may take."""
LOST = "the clean process was lost"
UNDER_VALGRIND = "under valgrind no memory is measured"


def run_alone_for(session: pytest.Session) -> Callable[..., Alone]:
    """Return what runs a test of the session once more: `CleanRuns.run`; registers what that takes."""
    runs = CleanRuns(session)
    if running_tool() is not None:
        runs.why_not = UNDER_VALGRIND
        return runs.run
    if sys.platform != "linux":
        runs.why_not = "only Linux can fork a clean process"
        return runs.run
    # Before the recorder is: what comes later is called first, and it measures before the fork.
    session.config.pluginmanager.register(runs, "imu-clean-runs")
    return runs.run


class CleanRuns(EndsForkServer):
    """The hooks around the process that forks, and the one more run of a test."""

    def __init__(self, session: pytest.Session) -> None:
        self._session = session
        self._known: frozenset[str] = frozenset()
        self._given: dict[str, None] = {}
        self.why_not: str | None = "no clean process was started"
        """Why there is no process that a test could run alone in."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> None:
        """Fork the process that has run no test, before any runs here."""
        config = session.config
        if config.option.collectonly:
            return
        threads = unsafe_threads()
        if threads:
            self.why_not = f"threads that a fork does not copy were running: {in_words(threads)}"
            return
        flush_output(config)
        self._known = frozenset(sys.modules)
        self.why_not = None
        self._server = ForkServer(CleanChild(session, resident_file_pages()))

    def run(
        self,
        item: pytest.Item,
        duration_ns: int,
        modules: Iterable[str] = (),
        *,
        lines: Message = None,
        limit_s: int = 0,
    ) -> Alone:
        """Run a test once more and return what it measured; it took *duration_ns* the first time.

        *modules* are imported before, from now on, besides those that this process has. *lines* says
        which lines are to be followed: the arguments of `why.phases.Follower`. They are followed in
        this process where no other can be had. Whatever fails is the reason why there are no numbers.
        """
        try:
            return self._run(item, duration_ns, modules, lines, limit_s or LEAST_LIMIT_S)
        except Exception as error:  # noqa: BLE001 - no fault of ours decides about a test
            return Alone(reason=f"{type(error).__name__}: {error}")

    def _run(
        self, item: pytest.Item, duration_ns: int, modules: Iterable[str], lines: Message, least_s: int
    ) -> Alone:
        self._given.update(dict.fromkeys(modules))
        server = self._server
        if item.get_closest_marker(NO_RERUN) is not None:
            return Alone(reason=f"it is marked {NO_RERUN}")
        if server is None and self.why_not is not None and lines is not None:
            return run_here(item, self.why_not, lines)
        if server is None or item not in self._session.items:
            return Alone(reason=self.why_not or "it was not collected with the others")
        if not server.is_mine or server.is_lost:
            return Alone(reason=LOST)
        looks = max(least_s, TIMES_THE_FIRST * duration_ns // NANOSECONDS_PER_SECOND)
        with timeouts_paused(item):
            number = self._session.items.index(item)
            task = {"number": number, "nodeid": item.nodeid, "modules": self._modules()}
            server.begin({**task, "lines": lines})
            return self._hear(server, looks)

    def _modules(self) -> list[str]:
        """Return what was imported since the clean process was forked, in that order."""
        modules = list(sys.modules.items())
        own = (name for name, module in modules if name not in self._known and _was_imported(module))
        return [*map(str, own), *self._given]

    def _hear(self, server: ForkServer, looks: int) -> Alone:
        told: Message = None
        try:
            while not isinstance(event := server.next_event(looks), str):
                told = event
        except TimeoutError:
            server.kill_and_wait()
            return Alone(reason=f"it had not ended after {looks} s")
        except BaseException:
            server.kill_and_wait()
            raise
        if told is None:
            return Alone(reason=LOST if server.pid is None else f"the child process {event}")
        return Alone.from_dict(told)


def _was_imported(module: object) -> bool:
    """Whether a module came by an import, and was not put there by a test."""
    try:
        return getattr(module, "__spec__", None) is not None
    except Exception:  # noqa: BLE001 - a lazy module raises what it likes
        return False
