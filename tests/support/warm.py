"""Whole runs of pytest, each in a fork of a process that has imported it already.

A run is what `python -m pytest` is without the start of the interpreter and the imports of pytest and of
this plugin: a third of the time. This file is also the program of the process that is forked.
"""

from __future__ import annotations

import array
import atexit
import contextlib
import functools
import gc
import importlib
import io
import json
import os
import pkgutil
import runpy
import signal
import socket
import struct
import subprocess
import sys
import threading
import types
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import IO, Any

from spares import keep_spares

AUTOLOAD = "PYTEST_DISABLE_PLUGIN_AUTOLOAD"
READ_AT_START = ("PYTHON", "LD_", "GLIBC_", "MALLOC_", "MIMALLOC_", "OPENBLAS_", "OMP_", AUTOLOAD)
"""What in the environment is read as a process starts, or before plugins are imported: with another one
a process is started anew."""
USUAL_ROOMS = ("core", "core.memory", "core.children", "recording", "report", "isolation", "history")
MORE = 2**16
ANSWER = struct.Struct("i")


def environment_at_start(environment: Mapping[str, str]) -> dict[str, str]:
    """Return what of an environment only a new process would heed."""
    return {
        name: value
        for name, value in environment.items()
        if name.startswith(READ_AT_START) and name != "PYTHONPATH"
    }


class WarmProcess:
    """What runs in a fork: as much of a `Popen` as pytester asks for."""

    stdin = None

    def __init__(self, connection: socket.socket, pid: int) -> None:
        self.pid = pid
        self._connection = connection

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit status, -N for signal N; raises TimeoutExpired."""
        self._connection.settimeout(timeout)
        try:
            return _answer(self._connection)
        except TimeoutError:
            raise subprocess.TimeoutExpired(["pytest"], timeout or 0) from None
        finally:
            self._connection.settimeout(None)

    def kill(self) -> None:
        """End it; its exit status is still to be waited for."""
        os.kill(self.pid, signal.SIGKILL)


class Template:
    """The process that others are forked from: started before the first, ended by its pipe's end."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        """Start it."""
        self._connection, theirs = socket.socketpair()
        environment = {name: value for name, value in environment.items() if name != "PYTHONPATH"}
        self._started_with = environment_at_start(environment)
        with theirs:
            subprocess.run(
                [sys.executable, __file__, str(theirs.fileno())],
                env=environment,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                check=True,
                start_new_session=True,  # a Ctrl-C ends the runs that hear it, and not this
            )

    def serves(self, environment: Mapping[str, str]) -> bool:
        """Whether a fork can have this environment."""
        return self._started_with == environment_at_start(environment)

    def start(
        self,
        arguments: Sequence[str | os.PathLike[str]],
        stdout: IO[Any],
        stderr: IO[Any],
        *,
        folder: Path,
        environment: Mapping[str, str],
    ) -> WarmProcess:
        """Start one, with pytest's arguments."""
        order = {
            "arguments": [os.fspath(word) for word in arguments],
            "environment": dict(environment),
            "folder": str(folder),
        }
        descriptors = array.array("i", [stdout.fileno(), stderr.fileno()])
        message = json.dumps(order).encode() + b"\n"
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)]
        self._connection.sendall(message[self._connection.sendmsg([message], rights) :])
        return WarmProcess(self._connection, _answer(self._connection))

    def end(self) -> None:
        """End it; nothing runs in it any more."""
        self._connection.close()


@contextlib.contextmanager
def kept_template(environment: Mapping[str, str]) -> Iterator[Template | None]:
    """Keep a template; there is none where no process can fork."""
    if not hasattr(os, "fork"):
        yield None
        return
    template = Template(environment)
    yield template
    template.end()


def _answer(connection: socket.socket) -> int:
    """Return what the template says next: a process's id, then its exit status."""
    found: int = ANSWER.unpack(connection.recv(ANSWER.size))[0]  # the next may be there already
    return found


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
        connection.sendall(ANSWER.pack(child))
        _, status = os.waitpid(child, 0)
        connection.sendall(ANSWER.pack(os.waitstatus_to_exitcode(status)))


def become(order: Mapping[str, Any]) -> None:
    """Let this fork be as if Python had started here."""
    from steadying import map_files_again

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background would ignore it
    os.chdir(order["folder"])
    os.environ.clear()
    os.environ.update(order["environment"])
    python_path = order["environment"].get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:] = [order["folder"], *filter(None, python_path), *sys.path[1:]]
    map_files_again()


def remember_what_is_installed() -> None:
    """Read once what pytest reads for every -p: the entry points of all that is installed."""
    found, every = [*metadata.distributions()], metadata.distributions
    distribution: Any = metadata.Distribution  # Any: a property is read and replaced
    distribution.entry_points = property(functools.cache(distribution.entry_points.fget))
    metadata.distributions = lambda **context: every(**context) if context else iter(found)


def leave_a_check_out() -> None:
    """Skip a check of pytest 9.2's: it unwraps each name of each plugin to warn of hidden fixtures."""
    from _pytest.fixtures import FixtureManager

    manager: Any = FixtureManager  # Any: older ones have no such check
    manager._check_for_wrapped_fixture = lambda *_: None


def import_pytest() -> None:
    """Import pytest, and this plugin through its rewriting of assertions; nothing is configured yet."""
    import pytest
    from _pytest.config import default_plugins

    remember_what_is_installed()
    leave_a_check_out()
    with contextlib.redirect_stdout(io.StringIO()):
        pytest.main(["--version", "--version", "-p", "imu", "-p", "no:cacheprovider"])
    for name in ("pdb", *(f"_pytest.{plugin}" for plugin in default_plugins)):
        importlib.import_module(name)
    for room in USUAL_ROOMS:
        package = importlib.import_module(f"pytest_imu.{room}")
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"{package.__name__}.{module.name}")


def run_pytest(arguments: Sequence[str]) -> None:
    """Be `python -m pytest`; xdist's workers are forks as well."""
    keep_spares(arguments, become_worker)
    sys.argv = ["", *arguments]
    sys.orig_argv = [sys.executable, "-mpytest", *arguments]
    runpy.run_module("pytest", run_name="__main__", alter_sys=True)


def become_worker(order: Mapping[str, Any]) -> None:
    """Be `python -u -c PROGRAM`, as execnet starts it."""
    become(order)
    [program] = order["arguments"]
    sys.argv = ["-c"]
    sys.orig_argv = [sys.executable, "-u", "-c", program]
    main_module = sys.modules["__main__"] = types.ModuleType("__main__")
    exec(program, vars(main_module))  # noqa: S102 - as -c does


def leave(code: object) -> None:
    """End this fork as Python ends a process, but let the kernel take its objects: to take them apart
    would copy nearly every page of the template's, a quarter of what a run costs.

    Returns where Python has something to say of its standard output or of the code.
    """
    threading._shutdown()  # type: ignore[attr-defined]  # Python's own first step
    atexit._run_exitfuncs()
    with contextlib.suppress(OSError, ValueError, TypeError):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(int(code or 0))  # type: ignore[call-overload]  # a text is no code


def main(descriptor: str) -> int:
    """Serve; in each fork, run pytest."""
    if os.fork():  # so that it is no child of the tests' process, which counts its children
        return 0
    import_pytest()
    gc.collect()
    gc.freeze()  # a collection in a run need not go through all of that again
    with socket.socket(fileno=int(descriptor)) as connection:
        order = serve(connection)
    if order is not None:
        become(order)
        try:
            run_pytest(order["arguments"])
        except SystemExit as ended:
            leave(ended.code)
            raise
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
