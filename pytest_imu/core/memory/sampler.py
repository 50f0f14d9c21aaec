"""PeakSampler: a thread that samples, where the kernel has no high-water mark to reset."""

from __future__ import annotations

from collections.abc import Callable
from threading import Event, Thread

DEFAULT_INTERVAL_S = 0.01
NOT_STARTED = "the thread was not started"


class PeakSampler:
    """Keep the highest of many readings, from `start()` to `stop()`.

    A lower bound: what comes and goes between two samples is not seen, and no sample is taken while
    C code holds the interpreter's lock. The first and the last reading are taken by the caller's own
    thread, so even the shortest window has two. A reading that raises is skipped.
    """

    def __init__(self, read: Callable[[], int], *, interval_s: float = DEFAULT_INTERVAL_S) -> None:
        self._read = read
        self._interval_s = interval_s
        self._stopping = Event()
        self._thread: Thread | None = None
        self.peak_bytes: int | None = None
        """The highest reading so far; None until one has succeeded."""
        self.error: Exception | None = None
        """The last reading's failure, if any reading failed."""
        self.refusal: Exception | None = None
        """Why the thread could not be started, if so: then there are only two readings."""

    def start(self) -> None:
        """Take the first reading and start the thread."""
        self.sample()
        try:
            thread = Thread(target=self._run, name="imu-sampler", daemon=True)
            thread.start()
            if thread.ident is None:
                raise RuntimeError(NOT_STARTED)  # noqa: TRY301 - one place for all that a mock may do
        except Exception as error:  # noqa: BLE001 - a mock may raise anything, and the block goes on
            self.refusal = error.with_traceback(None)  # it would keep the frames of the block's caller
        else:
            self._thread = thread

    def stop(self) -> int | None:
        """End the thread, take the last reading and return the highest; None if none succeeded."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.sample()
        return self.peak_bytes

    def sample(self) -> None:
        """Take one reading now."""
        try:
            reading_bytes = self._read()
        except Exception as error:  # noqa: BLE001 - whatever the reader does, the block goes on
            self.error = error
            return
        if self.peak_bytes is None or reading_bytes > self.peak_bytes:
            self.peak_bytes = reading_bytes

    def _run(self) -> None:
        while not self._stopping.wait(self._interval_s):
            self.sample()
