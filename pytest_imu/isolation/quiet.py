"""Cuts a forked process off from all that it shares with the session, so that nobody hears of its run.

A fork shares every open file with the process that it came from: what it writes appears there, what it
reads is gone there, a lock that it holds stays locked, and a pipe or a connection that it holds stays
open. No descriptor is closed, for Python's objects would close their numbers later: another file is put
under the same number.
"""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from collections.abc import Collection
from typing import Any

import pytest

STANDARD_STREAMS = (0, 1, 2)
_DIRECTORY = "/proc/self/fd"


def go_quiet(config: pytest.Config, *, spared: Collection[int]) -> None:
    """Let nothing that this process prints, logs or sends leave it, but by the *spared* descriptors."""
    _disable_plugins(config)
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        for descriptor in _open_descriptors():
            if descriptor not in spared and descriptor != null:
                _detach(descriptor, null)
    finally:
        os.close(null)
    _capture_anew(config)


def _capture_anew(config: pytest.Config) -> None:
    """Capture into files of this process's own. Those that were captured into are the session's."""
    capture: Any = config.pluginmanager.get_plugin("capturemanager")
    if capture is not None:
        capture._global_capturing = None  # noqa: SLF001 - to stop it would first write out what it holds
        capture.start_global_capturing()
        capture.suspend_global_capture()


def _disable_plugins(config: pytest.Config) -> None:
    """Let nobody debug here, nothing be attached, and no file but the null device get the log."""
    for name in ("pdbinvoke", "pdbtrace", "allure_listener"):
        config.pluginmanager.unregister(name=name)
    allure: Any = sys.modules.get("allure_commons")
    for plugin in () if allure is None else allure.plugin_manager.get_plugins():
        allure.plugin_manager.unregister(plugin)
    logging: Any = config.pluginmanager.get_plugin("logging-plugin")
    if logging is not None:
        with contextlib.suppress(OSError, ValueError):
            logging.set_log_path(os.devnull)


def _open_descriptors() -> list[int]:
    return [int(name) for name in os.listdir(_DIRECTORY)] if os.path.isdir(_DIRECTORY) else []  # noqa: PTH112, PTH208 - names alone


def _detach(descriptor: int, null: int) -> None:
    """Put another file under the number, if what is there is shared in a way that shows."""
    try:
        mode = os.fstat(descriptor).st_mode
    except OSError:  # the one that listed the others
        return
    if stat.S_ISDIR(mode) or (stat.S_ISCHR(mode) and not _is_stream(descriptor)):
        return
    inheritable = os.get_inheritable(descriptor)
    own = _opened_again(descriptor) if stat.S_ISREG(mode) else None
    os.dup2(null if own is None else own, descriptor, inheritable=inheritable)
    if own is not None:
        os.close(own)


def _is_stream(descriptor: int) -> bool:
    return descriptor in STANDARD_STREAMS or os.isatty(descriptor)


def _opened_again(descriptor: int) -> int | None:
    """Return a descriptor of our own for a file that is read, at its place; None for one written to."""
    import fcntl

    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    if flags & os.O_ACCMODE != os.O_RDONLY:
        return None
    try:
        own = os.open(f"{_DIRECTORY}/{descriptor}", os.O_RDONLY | os.O_CLOEXEC)
        os.lseek(own, os.lseek(descriptor, 0, os.SEEK_CUR), os.SEEK_SET)
    except OSError:
        return None
    return own
