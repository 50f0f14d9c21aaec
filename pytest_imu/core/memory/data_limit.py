"""A hard limit on this process's memory: the allocation that would pass it raises MemoryError (Linux).

The kernel counts private writable memory: untouched pages and the stacks of threads too, not RSS.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from collections.abc import Callable
from typing import Any

from pytest_imu.core.memory import platforms
from pytest_imu.core.units import MIB

try:
    import resource
except ImportError:  # Windows has none
    resource = None  # type: ignore[assignment]  # only asked for on Linux

STACKS = 8
"""For the stacks of how many new threads there is room besides: as many as a usual pool has."""
USUAL_STACK_BYTES = 8 * MIB
STARTERS = (
    ("subprocess", "_fork_exec"),
    ("_posixsubprocess", "fork_exec"),
    ("os", "posix_spawn"),
    ("os", "posix_spawnp"),
    ("os", "system"),
)
"""What starts other programs: they would inherit the limit."""
ABORTING = ("daft", "datafusion", "deltalake", "lance", "lancedb", "polars", "pyarrow", "tokenizers")
"""Libraries that end the process where they are refused memory: written in Rust, or with pools of their
own that know no refusal."""
Limits = tuple[int, int]


class DataLimit:
    """A limit of this process by RLIMIT_DATA; what it starts does not inherit it."""

    # Bound here, before any test runs.
    _get: Callable[[], Limits] = staticmethod(
        functools.partial(getattr(resource, "getrlimit", int), getattr(resource, "RLIMIT_DATA", 0))
    )
    _set: Callable[[Limits], None] = staticmethod(
        functools.partial(getattr(resource, "setrlimit", int), getattr(resource, "RLIMIT_DATA", 0))
    )

    get_stack: Callable[[], Limits] = staticmethod(
        functools.partial(getattr(resource, "getrlimit", int), getattr(resource, "RLIMIT_STACK", 0))
    )

    def __init__(self) -> None:
        self._before: Limits | None = None
        self._wanted: Limits | None = None
        self._starters: list[tuple[Any, str, Any, Any]] = []
        os.register_at_fork(
            before=self._suspend, after_in_parent=self._resume, after_in_child=self._forget
        )

    @property
    def is_set(self) -> bool:
        """Whether `set()` was called, in this process, and not `lift()` since."""
        return self._wanted is not None

    def allowed_bytes(self) -> int | None:
        """Return the most that others allow this process; None where nobody limits it."""
        limits = self._before or self._get()
        return min((one for one in limits if one != resource.RLIM_INFINITY), default=None)

    def set(self, room_bytes: int) -> None:
        """Allow this process so much more than it has; raises OSError or ValueError where refused."""
        self.lift()
        before, allowed_bytes = self._get(), self.allowed_bytes()
        counted_bytes = platforms.data_bytes(platforms.read_proc_file("/proc/self/status"))
        soft = counted_bytes + max(0, room_bytes)
        soft = soft if allowed_bytes is None else min(soft, allowed_bytes)
        self._before, self._wanted = before, (soft, before[1])
        self._wrap_starters()
        try:
            self._set(self._wanted)
        except BaseException:
            self.lift()
            raise

    def lift(self) -> None:
        """Put back what was there, unless somebody else has set another limit meanwhile."""
        before, wanted, self._before, self._wanted = self._before, self._wanted, None, None
        with contextlib.suppress(OSError, ValueError):  # a test may have lowered what it may be set to
            if before is not None and self._get() == wanted:
                self._set(before)
        for module, name, original, wrapped in self._starters:
            if getattr(module, name, None) is wrapped:
                setattr(module, name, original)
        self._starters = []

    def _suspend(self) -> None:
        if self._wanted is not None and self._before is not None and self._get() == self._wanted:
            self._set(self._before)

    def _resume(self) -> None:
        if self._wanted is not None and self._get() == self._before:
            self._set(self._wanted)

    def _forget(self) -> None:
        self._before = self._wanted = None

    def _wrap_starters(self) -> None:
        for module_name, name in STARTERS:
            module = sys.modules.get(module_name)
            original = getattr(module, name, None)
            # A patch of a test's, undone late, puts ours back.
            if original is not None and getattr(original, "imu_limit", None) is not self:
                wrapped = self._without_limit(original)
                setattr(module, name, wrapped)
                self._starters.append((module, name, original, wrapped))

    def _without_limit(self, start: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(start)
        def started(*args: Any, **kwargs: Any) -> Any:  # Any: whatever starts a program
            self._suspend()
            try:
                return start(*args, **kwargs)
            finally:
                self._resume()

        started.__dict__["imu_limit"] = self
        return started


def new_limit() -> DataLimit | None:
    """Return a limit to set; None where the platform has none that Python survives."""
    return DataLimit() if sys.platform == "linux" and resource is not None else None


process_limit = functools.cache(new_limit)
"""The one limit of tests in this process."""


def loaded_that_abort() -> list[str]:
    """Return which libraries are loaded that would end the process at a limit."""
    return [name for name in ABORTING if name in sys.modules]


def stacks_bytes() -> int:
    """Return how much the stacks of some new threads take of the limit, used or not."""
    soft, _ = DataLimit.get_stack()
    return STACKS * (
        USUAL_STACK_BYTES if soft == resource.RLIM_INFINITY else min(soft, USUAL_STACK_BYTES)
    )
