"""A descriptor that is proved to be ours each time it is used: tests close and reopen numbers."""

from __future__ import annotations

import contextlib
import os


class ClosedError(Exception):
    """Somebody else has closed the descriptor; its number may be another file's by now."""


class Descriptor:
    """A descriptor of our own, told by the file behind it; not inherited by programs."""

    # Bound before any test runs.
    _fstat = staticmethod(os.fstat)
    _close = staticmethod(os.close)

    def __init__(self, number: int) -> None:
        self._number = number
        self._identity = self._identity_now()

    def number(self) -> int:
        """Return the number, which is still ours; ClosedError where it is not."""
        try:
            if self._identity_now() == self._identity:
                return self._number
        except OSError:
            pass
        message = f"descriptor {self._number} was closed by somebody else"
        raise ClosedError(message)

    def close(self) -> None:
        """Close it, if it is still ours."""
        with contextlib.suppress(ClosedError, OSError):
            self._close(self.number())

    def _identity_now(self) -> tuple[int, int]:
        status = self._fstat(self._number)
        return status.st_dev, status.st_ino
