"""Lets a test's timeouts stand still while another run of it is waited for."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator
from typing import Any

import pytest


class _Timer:
    """The process's own timer; bound here, since a test may have mocked it."""

    set = staticmethod(getattr(signal, "setitimer", None) or (lambda *_: (0.0, 0.0)))
    REAL = getattr(signal, "ITIMER_REAL", 0)


@contextlib.contextmanager
def timeouts_paused(item: pytest.Item) -> Iterator[None]:
    """Stop the process's timer and pytest-timeout's; let them go on after it."""
    hook: Any = item.ihook
    timeout: Any = sys.modules.get("pytest_timeout")
    is_armed = timeout is not None and getattr(item, "cancel_timeout", None) is not None
    if is_armed:
        hook.pytest_timeout_cancel_timer(item=item)
    left_s, interval_s = _Timer.set(_Timer.REAL, 0)
    try:
        yield
    finally:
        if left_s:
            _Timer.set(_Timer.REAL, left_s, interval_s)
        if is_armed:
            settings = timeout._get_item_settings(item)  # noqa: SLF001 - it has no public one
            hook.pytest_timeout_set_timer(item=item, settings=settings)
