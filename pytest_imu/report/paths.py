"""The files that a run is to write, tried before its first test: each can be written, no two are one."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_imu.core.invalid import InvalidValueError
from pytest_imu.core.outfile import STDOUT, check_writable, own_descriptor
from pytest_imu.kinds import STEP_SUMMARY
from pytest_imu.settings import Settings

if TYPE_CHECKING:
    from pytest_imu.recording.runlog import RunLog

OF_OTHERS = {
    "--junit-xml": "xmlpath",
    "--log-file": "log_file",
    "--report-log": "report_log",
    "--html": "htmlpath",
    "--json-report-file": "json_report_file",
}
"""Options of pytest and its plugins that name a file to write, and where their values are kept."""
STREAMS = {"standard output": 1, "standard error": 2}


def run_log(config: pytest.Config, settings: Settings) -> RunLog | None:
    """Return this process's run log, if one was asked for."""
    if settings.log_path is None:
        return None
    from pytest_imu.recording.runlog import RunLog

    return RunLog.for_run(config, settings.log_path)


def begin_files(config: pytest.Config, settings: Settings, environment: dict[str, Any]) -> RunLog | None:
    """Prove, before any test runs, that the files asked for can be written; else a usage error.

    Returns the run log, which has begun.
    """
    summary = None if settings.summary_path == Path(STEP_SUMMARY) else settings.summary_path
    ours = {
        "--imu-json": settings.json_path,
        "--imu-log": settings.log_path,
        "--imu-summary": summary,
        "--imu-html": settings.html_path,
    }
    for flag, path in ours.items():
        if path is not None and path != STDOUT:
            with _naming(flag, path):
                _refuse_shared(flag, path, {**ours, **_of_others(config)})
    for flag, path in ours.items():
        if path is not None and flag != "--imu-log":  # which is tried as it begins
            if flag == "--imu-html":
                _refuse_captured(flag, path)
            with _naming(flag, path):
                check_writable(path)
    if settings.log_path is None:
        return None
    _refuse_captured("--imu-log", settings.log_path)
    with _naming("--imu-log", settings.log_path):
        log = run_log(config, settings)
        if log is not None:
            log.begin_file(environment)
    return log


def _refuse_captured(flag: str, path: Path) -> None:
    if path == STDOUT or own_descriptor(path) in STREAMS.values():
        raise _invalid(flag, path, "a file, not output that pytest captures")


@contextlib.contextmanager
def _naming(flag: str, path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        expected = f"a file that can be written ({getattr(error, 'strerror', None) or error})"
        raise _invalid(flag, path, expected) from None


def _invalid(flag: str, path: Path, expected: str) -> pytest.UsageError:
    return pytest.UsageError(InvalidValueError(str(path), expected).of(flag))


def _of_others(config: pytest.Config) -> dict[str, Path | None]:
    values = {flag: config.getoption(name, None) for flag, name in OF_OTHERS.items()}
    folder = config.invocation_params.dir
    return {
        flag: Path(folder, Path(os.path.expandvars(value)).expanduser())
        for flag, value in values.items()
        if isinstance(value, str) and value
    }


def _refuse_shared(flag: str, path: Path, paths: dict[str, Path | None]) -> None:
    sharing = [
        f"that of {other}" for other, one in paths.items() if other != flag and _is_same(path, one)
    ]
    # One that stands for the descriptor itself, as /dev/stdout does, is no file beside it.
    if own_descriptor(path) is None:
        sharing += [
            f"the one that {name} goes to"
            for name, number in STREAMS.items()
            if _is_open_as(path, number)
        ]
    if sharing:
        raise _invalid(flag, path, f"a file other than {sharing[0]}")


def _is_same(path: Path, other: Path | None) -> bool:
    if other is None or os.path.realpath(path) == os.devnull:  # what is thrown away mixes with nothing
        return False
    with contextlib.suppress(OSError, ValueError):
        if path.samefile(other):
            return True
    return os.path.realpath(path) == os.path.realpath(other)


def _is_open_as(path: Path, descriptor: int) -> bool:
    """Whether a descriptor is open on this very file; on a device or a pipe both may write."""
    with contextlib.suppress(OSError, ValueError):
        found = path.stat()
        return stat.S_ISREG(found.st_mode) and os.path.samestat(found, os.fstat(descriptor))
    return False
