"""Running another program for a moment, to hear what it says of itself."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence


def ask(
    command: Sequence[str], *, timeout_s: float, environment: Mapping[str, str] | None = None
) -> tuple[int, str]:
    """Return a program's exit status and all that it printed.

    Raises OSError if it does not run, and TimeoutError (an OSError too) if it, or what it has started,
    does not end in time.
    """
    # Into a file: a pipe would be waited for as long as any grandchild holds it open.
    with tempfile.TemporaryFile() as said:
        with subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        ) as process:
            try:
                status = process.wait(timeout_s)
            except BaseException as error:
                os.killpg(process.pid, signal.SIGKILL)
                if isinstance(error, subprocess.TimeoutExpired):
                    raise TimeoutError(str(error)) from None
                raise
        said.seek(0)
        return status, said.read().decode(errors="replace").strip()
