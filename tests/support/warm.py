"""Whole runs of pytest, each in a fork of a process that has imported pytest already.

A run is what `python -m pytest` is without the start of the interpreter and the imports of pytest and of
this plugin: a third of the time. This file is also the program of the process that is forked.
"""

from __future__ import annotations

import array
import contextlib
import gc
import importlib
import io
import json
import os
import pkgutil
import runpy
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

AUTOLOAD = "PYTEST_DISABLE_PLUGIN_AUTOLOAD"
READ_AT_START = ("PYTHON", "LD_", "GLIBC_", "MALLOC_", "MIMALLOC_", "OPENBLAS_", "OMP_", AUTOLOAD)
"""What in the environment is read as a process starts, or before plugins are imported: with another one
a process is started anew."""
USUAL_ROOMS = ("core", "core.memory", "core.children", "recording", "report", "isolation", "history")
MORE = 2**16


def environment_at_start(environment: Mapping[str, str]) -> dict[str, str]:
    """Return what of an environment only a new process would heed."""
    return {
        name: value
        for name, value in environment.items()
        if name.startswith(READ_AT_START) and name != "PYTHONPATH"
    }


class WarmProcess:
    """A run of pytest in a fork: what pytester asks of a `Popen`."""

    name = "pytest"
    stdin = None

    def __init__(self, connection: socket.socket, pid: int) -> None:
        self.pid = pid
        self._connection = connection

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit status, -N for signal N; raises TimeoutExpired."""
        self._connection.settimeout(timeout)
        try:
            return int(_received(self._connection)[0])
        except TimeoutError:
            raise subprocess.TimeoutExpired(self.name, timeout or 0) from None
        finally:
            self._connection.settimeout(None)

    def kill(self) -> None:
        """End it; its exit status is still to be waited for."""
        os.kill(self.pid, signal.SIGKILL)


class Template:
    """The process that runs are forked from: started as a session begins, ended by its pipe's end."""

    def __init__(self) -> None:
        self._connection, theirs = socket.socketpair()
        environment = dict(os.environ, **{AUTOLOAD: "1"})
        for name in ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE"):
            environment.pop(name, None)
        self._started_with = environment_at_start(environment)
        with theirs:
            subprocess.run(
                [sys.executable, __file__, str(theirs.fileno())],
                env=environment,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                check=True,
            )

    def serves(self, command: Sequence[str | os.PathLike[str]]) -> bool:
        """Whether a command is one that a fork can run, here and now."""
        is_pytest = [sys.executable, "-mpytest"] == [os.fspath(word) for word in command[:2]]
        return is_pytest and self._started_with == environment_at_start(os.environ)

    def start(
        self, command: Sequence[str | os.PathLike[str]], stdout: IO[Any], stderr: IO[Any]
    ) -> WarmProcess:
        """Start pytest, here and with this environment."""
        order = {
            "arguments": [os.fspath(word) for word in command[2:]],
            "environment": dict(os.environ),
            "folder": str(Path.cwd()),
        }
        descriptors = array.array("i", [stdout.fileno(), stderr.fileno()])
        message = json.dumps(order).encode() + b"\n"
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)]
        self._connection.sendall(message[self._connection.sendmsg([message], rights) :])
        return WarmProcess(self._connection, int(_received(self._connection)[0]))

    def end(self) -> None:
        """End it; nothing runs in it any more."""
        self._connection.close()


def _received(connection: socket.socket) -> tuple[bytes, list[int]]:
    """Return one line, and the descriptors that came with it; no line where the other side has ended."""
    line, descriptors = b"", array.array("i")
    while not line.endswith(b"\n"):
        part, rights, *_ = connection.recvmsg(MORE, socket.CMSG_SPACE(2 * descriptors.itemsize))
        if not part:
            return b"", []
        line += part
        for _, _, data in rights:
            descriptors.frombytes(data)
    return line, descriptors.tolist()


def serve(connection: socket.socket) -> dict[str, Any] | None:
    """Fork for each order; return it in the fork, and None once there will be no more."""
    while True:
        line, descriptors = _received(connection)
        if not line:
            return None
        child = os.fork()
        if child == 0:
            connection.close()
            for number, descriptor in enumerate(descriptors, start=1):
                os.dup2(descriptor, number)
                os.close(descriptor)
            order: dict[str, Any] = json.loads(line)
            return order
        for descriptor in descriptors:
            os.close(descriptor)
        connection.sendall(f"{child}\n".encode())
        _, status = os.waitpid(child, 0)
        connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())


def become(order: Mapping[str, Any]) -> None:
    """Let this fork be as if `python -m pytest` had started here."""
    from steadying import map_files_again

    os.chdir(order["folder"])
    os.environ.clear()
    os.environ.update(order["environment"])
    python_path = order["environment"].get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:] = [order["folder"], *filter(None, python_path), *sys.path[1:]]
    sys.argv = [str(Path(sys.modules["pytest"].__file__ or "").with_name("__main__.py"))]
    sys.argv += order["arguments"]
    sys.orig_argv = [sys.executable, "-mpytest", *order["arguments"]]
    map_files_again()


def import_as_pytest_does() -> None:
    """Import pytest, and this plugin through its rewriting of assertions; nothing is configured yet."""
    import pytest
    from _pytest.config import default_plugins

    with contextlib.redirect_stdout(io.StringIO()):
        pytest.main(["--version", "--version", "-p", "imu", "-p", "no:cacheprovider"])
    for name in default_plugins:
        importlib.import_module(f"_pytest.{name}")
    for room in USUAL_ROOMS:
        package = importlib.import_module(f"pytest_imu.{room}")
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"{package.__name__}.{module.name}")


def main() -> int:
    """Serve; in each fork, run pytest."""
    if os.fork():  # so that it is no child of the tests' process, which counts its children
        return 0
    import_as_pytest_does()
    gc.collect()
    gc.freeze()  # a collection in a run need not go through all of that again
    with socket.socket(fileno=int(sys.argv[1])) as connection:
        order = serve(connection)
    if order is not None:
        become(order)
        runpy.run_module("pytest", run_name="__main__", alter_sys=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
