"""Real shells, each in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from warm import Template, WarmProcess, kept_template

DRIVER = r"""
import contextlib, io, json, os, re, signal, subprocess, sys, threading
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

config = Config(json.loads(sys.argv[1]))
config.InteractiveShell.colors = "nocolor"
config.HistoryManager.enabled = False
shell = InteractiveShell.instance(config=config)
seen = {}

def run(source, *, store_history=True, **arguments):
    '''Run a command; return what it printed, without blank lines.'''
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        shell.run_cell(source, store_history=store_history, **arguments)
    text = re.sub(r"\x1b\[[0-9;]*m", "", out.getvalue() + err.getvalue())
    return [line for line in text.splitlines() if line.strip()]

def report(source, **arguments):
    '''Run a command and return the last line that it printed.'''
    return (run(source, **arguments) or [""])[-1]

def error(source):
    '''Run a command and return its error; the report that follows it is left out.'''
    lines = run(source)
    return [line for line in lines if not line.startswith("'")]

load = run("%load_ext ipython_hooks")
"""

Shell = Callable[..., Any]


IN_EACH = {"MPLBACKEND": "agg", "OPENBLAS_NUM_THREADS": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
"""Set in the process that shells are forked from, too, which serves none with another environment."""


@pytest.fixture(scope="session")
def shell_template() -> Iterator[Template | None]:
    """Keep one process that shells are forked from, where a process can fork."""
    with kept_template("shell", {**os.environ, **IN_EACH}) as template:
        yield template


@pytest.fixture
def shell(tmp_path: Path, shell_template: Template | None) -> Shell:
    """Return a function that runs a script in a fresh shell with the extension loaded.

    Warnings are errors there; the script fills `seen`, which is returned. A fork has holes in its heap
    that a new process has not: what a command touches there and gives back is 0.1 MiB.
    """

    def run(script: str, config: Mapping[str, Any] | None = None, *, is_forked: bool = True) -> Any:
        program = (
            DRIVER + textwrap.dedent(script) + "\nprint(json.dumps(seen), flush=True)\nos._exit(0)\n"
        )
        arguments = [program, json.dumps(config or {})]
        environment = {**os.environ, **IN_EACH, "IPYTHONDIR": str(tmp_path / "ipython")}
        out, err = tmp_path / "stdout", tmp_path / "stderr"
        with out.open("wb") as stdout, err.open("wb") as stderr:
            started: WarmProcess | subprocess.Popen[bytes]
            if shell_template is not None and is_forked:
                assert shell_template.serves(environment)
                started = shell_template.start(
                    arguments, stdout, stderr, folder=tmp_path, environment=environment
                )
            else:
                command = [sys.executable, "-W", "error", "-c", *arguments]
                started = subprocess.Popen(
                    command, stdout=stdout, stderr=stderr, cwd=tmp_path, env=environment
                )
            status = started.wait(120)
        printed = out.read_text(encoding="utf-8")
        assert (0, "") == (status, err.read_text(encoding="utf-8")), printed
        assert "Error in callback" not in printed
        return json.loads(printed.splitlines()[-1])

    return run
