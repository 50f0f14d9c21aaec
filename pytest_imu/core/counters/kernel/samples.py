"""A thread that takes a sample every 0.1 s of a window; it is not counted itself."""

from __future__ import annotations

import threading
from collections.abc import Callable

SAMPLE_S = 0.1
"""How long one of the samples that are shown is: as in the ancestor's reports."""


class SamplingThread:
    """Calls *take* every 0.1 s between `begin()` and `end()`, and never outside of them."""

    def __init__(self, take: Callable[[], None]) -> None:
        self._take = take
        self._state = threading.Condition()
        self._window = 0
        self._is_open = self._is_ended = False
        self._thread = threading.Thread(target=self._run, name="imu-counter-samples", daemon=True)
        self._thread.start()

    @property
    def thread_id(self) -> int | None:
        """The kernel's number of the thread."""
        return self._thread.native_id

    def begin(self) -> None:
        """Take samples from now on."""
        with self._state:
            self._window += 1
            self._is_open = True
            self._state.notify()

    def end(self) -> None:
        """Take no more; one that is being taken is finished first."""
        with self._state:
            self._is_open = False

    def stop(self) -> None:
        """End the thread."""
        with self._state:
            self._is_ended = True
            self._state.notify()
        self._thread.join()

    def _run(self) -> None:
        with self._state:
            while not self._is_ended:
                window = self._window
                # Woken as the next window begins, which it has to wait a tenth of a second for again.
                woken = self._state.wait(SAMPLE_S if self._is_open else None)
                if self._is_open and not woken and window == self._window:
                    self._take()
