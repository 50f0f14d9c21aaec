"""What isolated tests are the first to import: measured once, and then no test's need any more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from pytest_imu.core.alone import Alone
from pytest_imu.core.imports import WORTH_BYTES
from pytest_imu.isolation.forkserver import ForkServer


class Imports:
    """The modules that tests have brought in, for the process that forks them or for its children."""

    def __init__(self, run_again: Callable[..., Alone]) -> None:
        """*run_again* runs a test once more in a process that has imported what it is given."""
        self._run_again = run_again
        self._modules: dict[str, None] = {}
        self._waiting: list[str] = []
        self._server_told: ForkServer | None = None
        self.in_children: list[str] = []
        """What each child imports by itself: importing it starts threads that a fork does not copy."""
        self.sizes: dict[str, int] = {}

    def run_again(self, item: pytest.Item, first_ns: int, modules: Sequence[str], **rest: Any) -> Alone:
        """Run a test once more that has imported these modules and took *first_ns*."""
        alone = self._run_again(item, first_ns, modules, **rest)
        for package, size_bytes in alone.imported.items():
            if size_bytes >= WORTH_BYTES:
                self.sizes.setdefault(package, size_bytes)
        if alone.imported:
            own = self.in_children if alone.imports_start_threads else self._waiting
            own += [name for name in modules if name not in self._modules]
            self._modules.update(dict.fromkeys(modules))
        return alone

    def take_over(self, server: ForkServer) -> None:
        """Have a server import what has come since; a new one imports all."""
        if server is not self._server_told:
            self._waiting = [name for name in self._modules if name not in self.in_children]
            self._server_told = server
        if self._waiting:
            server.import_modules(self._waiting)
            self._waiting = []
