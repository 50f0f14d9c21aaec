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

    @property
    def is_ours(self) -> bool:
        """Whether nobody has closed it, or opened another file under its number."""
        try:
            return self._identity_now() == self._identity
        except OSError:
            return False

    def number(self) -> int:
        """Return the number, which is still ours; `closed_error()` where it is not."""
        if self.is_ours:
            return self._number
        raise self.closed_error()

    def closed_error(self) -> Exception:
        """Return what is raised where somebody else has closed it."""
        return ClosedError(f"descriptor {self._number} was closed by somebody else")

    def close(self) -> None:
        """Close it, if it is still ours."""
        if self.is_ours:
            with contextlib.suppress(OSError):
                self._close(self._number)

    def _identity_now(self) -> tuple[int, int]:
        status = self._fstat(self._number)
        return status.st_dev, status.st_ino
