"""`--imu-simulate`: the same run again, under valgrind, which simulates caches and counts in them."""

from __future__ import annotations

import atexit
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

import pytest

from pytest_imu import workers
from pytest_imu.core.budgets import EventBudget
from pytest_imu.core.counters.callgrind.command import (
    FIX,
    USUAL_CACHES,
    callgrind_command,
    dumps_at,
    find_valgrind,
    running_tool,
    valgrind_arguments,
    why_refused,
)
from pytest_imu.core.counters.choice import simulated_caches_of
from pytest_imu.core.counters.source import CannotCountError
from pytest_imu.markers import budgets_of
from pytest_imu.settings import Settings
from pytest_imu.simulation import cpu

FLAG = "--imu-simulate"
MARK = "PYTEST_IMU_SIMULATED"
"""Tells the process that is started that it was."""
CHANGED = ("PYTHONHASHSEED", "LD_LIBRARY_PATH", *cpu.VARIABLES)
"""What the process is started with for this run, or by Debian's valgrind, and puts back."""
NOT_A_RUN = ("collectonly", "help", "version", "showfixtures", "show_fixtures_per_test", "setupplan")
"""Options under which no test runs."""
INITIAL_ENVIRONMENT = Path("/proc/self/environ")
REMOVE_FOLDER = Path(__file__).with_name("remove_folder.py")
REMOVE_FOLDER_TIMEOUT_S = 60
_LOCAL_WORKER = re.compile(r"(?:[0-9]+\*)?popen(?://(?!python=).+)?")


def begin(config: pytest.Config) -> None:
    """Start again under callgrind, or let xdist start its workers there; raises pytest.UsageError.

    Returns where this process is already the one that is simulated, or only controls those that are.
    """
    tool, mark = running_tool(), os.environ.pop(MARK, None)
    if mark is not None:
        _put_back()
    if mark is not None and tool == "callgrind":
        # Its last dump is written after all else: without the folder, which a test may have removed,
        # valgrind would end the process with a status of its own.
        folder = dumps_at(valgrind_arguments(), pid=os.getpid(), start_folder=Path.cwd()).parent
        atexit.register(os.makedirs, folder, exist_ok=True)
    if tool == "callgrind" or workers.is_worker(config) or _runs_no_test(config):
        return
    if tool is not None:
        _refuse(f"valgrind already runs this process, with its tool {tool}")
    if mark is not None:
        _refuse("valgrind started this process, and cannot be seen around it")
    if sys.flags.ignore_environment:
        _refuse("with python -I or -E the hash seed cannot be fixed, and counts would differ")
    if sys.platform != "linux":
        _refuse(f"callgrind is used on Linux only, and this is {sys.platform}")
    settings = Settings.from_config(config)
    valgrind, caches = _valgrind(settings.caches)

    def under_callgrind(python: Sequence[str], folder: Path) -> list[str]:
        return callgrind_command(valgrind, python=python, caches=caches, out_folder=folder)

    begin_there = _simulate_workers if _has_workers(config) else _start_again
    begin_there(config, under_callgrind, fixes_cpu=settings.simulate_cpu == "baseline")


def _valgrind(caches: str | None) -> tuple[str, str]:
    """Return the valgrind to use, and the caches that it is to simulate."""
    try:
        valgrind, _ = find_valgrind()
    except CannotCountError as error:
        _refuse(f"valgrind: {error}; {FIX}")
    if caches is not None and (why := why_refused(valgrind, caches)):
        _refuse(f"valgrind refuses {caches}: {why}")
    return valgrind, caches or USUAL_CACHES


def keep_budgeted(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect the tests without a budget on events; a marker at fault is told of later."""
    others = [item for item in items if not _is_budgeted(item)]
    if others:
        config.hook.pytest_deselected(items=others)
        items[:] = [item for item in items if item not in set(others)]


def header(config: pytest.Config, settings: Settings) -> str | None:
    """Return the line of pytest's header that says what is simulated; None where no test runs."""
    if _runs_no_test(config):
        return None
    simulated = f"{simulated_caches_of(settings.caches)}, {settings.simulate_cpu} CPU"
    return f"imu: simulated caches {simulated}; memory is not measured"


def _is_budgeted(item: pytest.Item) -> bool:
    try:
        return any(isinstance(budget, EventBudget) for budget in budgets_of(item, ()))
    except pytest.UsageError:
        return True


def _refuse(why: str) -> NoReturn:
    raise pytest.UsageError(f"{FLAG}: {why}") from None


def _runs_no_test(config: pytest.Config) -> bool:
    return any(config.getoption(name, None) for name in NOT_A_RUN)


def _has_workers(config: pytest.Config) -> bool:
    return bool(config.getoption("tx", None)) and config.getoption("dist", "no") != "no"


def _start_again(
    config: pytest.Config, command: Callable[[Sequence[str], Path], list[str]], *, fixes_cpu: bool
) -> NoReturn:
    """Put the same pytest, under callgrind, in this one's place."""
    arguments = [str(argument) for argument in config.invocation_params.args]
    if not _is_own_program(arguments) or config.invocation_params.plugins:
        _refuse("another program called pytest.main(); start it as pytest or python -m pytest")
    environment = _initial_environment()
    environment |= _marks(environment, fixes_cpu=fixes_cpu)
    words = command([sys.executable, *sys.orig_argv[1:]], _private_folder())
    _let_go_of_the_terminal(config)
    os.chdir(config.invocation_params.dir)
    os.execve(words[0], words, environment)  # noqa: S606 - no shell is what is wanted


def _is_own_program(arguments: list[str]) -> bool:
    """Tell whether this process is pytest itself, and its command line can be used once more."""
    program = Path(sys.argv[0])
    named = program.name.startswith(("pytest", "py.test")) or program.parent.name == "pytest"
    last = sys.orig_argv[len(sys.orig_argv) - len(arguments) :]
    return named and arguments == sys.argv[1:] == last


def _let_go_of_the_terminal(config: pytest.Config) -> None:
    """Give standard input and output back, as they were before pytest captured them."""
    capture = config.pluginmanager.getplugin("capturemanager")
    if capture is not None:
        capture.stop_global_capturing()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()


def _simulate_workers(
    config: pytest.Config, command: Callable[[Sequence[str], Path], list[str]], *, fixes_cpu: bool
) -> None:
    """Let xdist start its workers under callgrind, while this process runs as it is."""
    remote = [spec for spec in config.option.tx if _LOCAL_WORKER.fullmatch(spec) is None]
    if remote:
        _refuse(f"cannot start the worker {remote[0]!r} under valgrind; use --tx popen")
    added = _marks(os.environ, fixes_cpu=fixes_cpu)
    marks = [f"{name}={value}" for name, value in added.items()]
    words = [shutil.which("env") or "env", *marks, *command([sys.executable], _private_folder())]
    config.option.tx = [f"{spec}//python={shlex.join(words)}" for spec in config.option.tx]


def _private_folder() -> Path:
    """Return a folder for callgrind's files, which goes once this process has ended."""
    folder = Path(tempfile.mkdtemp(prefix="imu-"))
    # Isolated and without site: this takes 20 ms, and 8 MiB while the run lasts.
    command = [sys.executable, "-I", "-S", str(REMOVE_FOLDER), str(folder)]
    subprocess.run(command, stdin=subprocess.DEVNULL, check=True, timeout=REMOVE_FOLDER_TIMEOUT_S)
    return folder


def _marks(environment: Mapping[str, str], *, fixes_cpu: bool) -> dict[str, str]:
    """Return what is added to the environment: a fixed hash seed and CPU, and what to put back."""
    was = {f"{MARK}_{name}": environment[name] for name in CHANGED if name in environment}
    fixed = cpu.baseline(environment) if fixes_cpu else {}
    if fixed and not cpu.starts_with(fixed, environment):
        _refuse("this C library does not run on a baseline CPU; set imu_simulate_cpu = host")
    return {"PYTHONHASHSEED": "0", MARK: "yes", **was, **fixed}


def _put_back() -> None:
    """Give this process's environment back what it was, so that the programs that tests start see it."""
    at_import = {
        name: os.environ[name]
        for name in cpu.READ_AT_IMPORT
        if name in os.environ and f"{MARK}_{name}" not in os.environ
    }
    if at_import:
        sys.meta_path.insert(0, cpu.AtImport(at_import))
    for name in CHANGED:
        os.environ.pop(name, None)
        was = os.environ.pop(f"{MARK}_{name}", None)
        if was is not None:
            os.environ[name] = was


def _initial_environment() -> dict[str, str]:
    """Return the environment that this process was started with; what came since will come again."""
    words = os.fsdecode(INITIAL_ENVIRONMENT.read_bytes()).split("\0")
    pairs = (word.partition("=") for word in words if "=" in word)
    return {name: value for name, _, value in pairs}
