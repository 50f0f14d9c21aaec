"""Runs tests in forked children of a process that has run none: the session's side of it."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable
from typing import Any

import pytest

from pytest_imu.core.alone import Alone
from pytest_imu.isolation.child import Child
from pytest_imu.isolation.file_pages import resident_file_pages
from pytest_imu.isolation.first_imports import Imports
from pytest_imu.isolation.forkserver import EndsForkServer, ForkServer
from pytest_imu.isolation.messages import flush_output
from pytest_imu.isolation.native_threads import in_words, unsafe_threads
from pytest_imu.isolation.parent import IsolatedTest, is_debugging
from pytest_imu.isolation.patience import Patience
from pytest_imu.isolation.stacks import Stacks
from pytest_imu.markers import BUDGETS
from pytest_imu.recording.warning import record_warning
from pytest_imu.settings import Settings

KEEPERS = {
    "pytest_benchmark": ("pytest-benchmark", "the results"),
    "pytest_harvest": ("pytest-harvest", "the results"),
    "snapshottest": ("snapshottest", "the snapshots"),
    "syrupy": ("syrupy", "the snapshots"),
}
"""Plugins that gather in memory, for the end of the run, what the tests with their fixtures did."""

MARKED = {"dependency": "pytest-dependency", "incremental": "the hooks that skip incremental tests"}
"""Markers of what decides about a test by how others ended, as it was noted in their own processes."""


class Isolation(EndsForkServer):
    """The hooks that send a test to a child instead of running it here."""

    def __init__(
        self, session: pytest.Session, settings: Settings, run_again: Callable[..., Alone]
    ) -> None:
        """*run_again* runs a test once more, as `CleanRuns.run` does."""
        self._session = session
        self._settings = settings
        self._numbers = {
            item: number
            for number, item in enumerate(session.items)
            if settings.isolate == "all" or BUDGETS in item.stash
        }
        self._stacks = Stacks()
        self._imports = Imports(run_again)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> None:
        """Fork the process that has run no test, before any runs here."""
        config = session.config
        if not self._numbers or config.option.collectonly:
            return
        with contextlib.suppress(KeyError, AttributeError, OSError):
            # Made here: each child would make a numbered folder of its own. Where that fails, the
            # tests that need it say why; with -p no:tmpdir there is none.
            config.__dict__["_tmp_path_factory"].getbasetemp()
        self._warn_of_keepers()
        self._warn_of_threads()
        self._server = self._start_server()

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
        """Run an isolated test in a child, and tell its reports to those who listen here."""
        number = self._numbers.get(item)
        server = self._server
        if number is None or server is None or not server.is_mine:
            return None
        if server.is_lost:  # killed, or cut off by a test that closed what it had not opened
            self._close()
            server = self._server = self._start_server()
            self._imports.take_over(server)
        measured = self._settings.measure_all or BUDGETS in item.stash
        patience = Patience(item, self._stacks, self._settings.isolate_timeout_s)
        run_again = functools.partial(self._imports.run_again, item)
        task = {"number": number, "modules": self._imports.in_children}
        IsolatedTest(item, server, patience, run_again, measured=measured).run(task)
        self._imports.take_over(server)
        self._finalise_what_is_left_here(item, nextitem)
        return True

    @pytest.hookimpl(optionalhook=True, tryfirst=True)
    def pytest_timeout_set_timer(self, item: pytest.Item, settings: Any) -> bool | None:
        """Leave pytest-timeout's thread to the child: here it would end the whole run."""
        # Any: the type is pytest-timeout's.
        is_here = self._server is not None and self._server.is_mine and item in self._numbers
        return True if is_here and settings.method == "thread" else None

    @pytest.hookimpl
    def pytest_unconfigure(self) -> None:
        """End what is left."""
        super().pytest_unconfigure()
        self._stacks.close()

    @property
    def first_imports(self) -> dict[str, int]:
        """The bytes that each large package took when a test was the first to import it."""
        return self._imports.sizes

    def _warn_of_keepers(self) -> None:
        """Name the plugins that gather from tests what cannot come from their children."""
        for package, (name, kept) in KEEPERS.items():
            if package in sys.modules and any(_has_fixture_of(package, one) for one in self._numbers):
                self._warn(
                    f"{name} loses {kept} of isolated tests: it keeps them in each test's own process"
                )
        for marker, name in MARKED.items():
            if any(item.get_closest_marker(marker) for item in self._numbers):
                self._warn(f"{name} cannot see how isolated tests end")

    def _warn_of_threads(self) -> None:
        """Name the libraries that may wait for ever, in a child, for threads that it does not have."""
        if threads := unsafe_threads():
            self._warn(f"isolated tests may hang: a fork does not copy threads ({in_words(threads)})")

    def _warn(self, text: str) -> None:
        record_warning(self._session.config.hook, text, when="config")

    def _start_server(self) -> ForkServer:
        config = self._session.config
        flush_output(config)
        # A debugger needs the terminal; a server that has none cannot give it to its children.
        workshop = Child(self._session, resident_file_pages(), self._stacks)
        return ForkServer(workshop, detached=not is_debugging(config))

    def _finalise_what_is_left_here(self, item: pytest.Item, nextitem: pytest.Item | None) -> None:
        """Finalise the fixtures of tests that ran in this process and that the next one does not need.

        pytest does so in each test's teardown, and an isolated test's is in its child.
        """
        state = self._session._setupstate  # noqa: SLF001 - as pytest's runner ends it
        if not state.stack:
            return
        if self._session.shouldfail or self._session.shouldstop:
            nextitem = None
        capture: Any = self._session.config.pluginmanager.get_plugin("capturemanager")
        captured = (
            contextlib.nullcontext() if capture is None else capture.item_capture("teardown", item)
        )
        with captured:
            call = pytest.CallInfo.from_call(
                lambda: state.teardown_exact(nextitem),
                when="teardown",
                reraise=(pytest.exit.Exception, KeyboardInterrupt),
            )
        if call.excinfo is not None:
            report = item.ihook.pytest_runtest_makereport(item=item, call=call)
            item.ihook.pytest_runtest_logreport(report=report)


def _has_fixture_of(package: str, item: pytest.Item) -> bool:
    """Whether a test asks for a fixture that a package defines."""
    info: Any = getattr(item, "_fixtureinfo", None)  # pytest's own; a doctest of old has none
    definitions = {} if info is None else info.name2fixturedefs
    return any(
        getattr(definition.func, "__module__", "").partition(".")[0] == package
        for named in definitions.values()
        for definition in named
    )
