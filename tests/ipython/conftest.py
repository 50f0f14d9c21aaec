"""Real shells, each in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

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


IN_EACH = {"MPLBACKEND": "agg", "OPENBLAS_NUM_THREADS": "1"}


@pytest.fixture
def shell(tmp_path: Path, interrupts_are_heard: None) -> Shell:  # noqa: ARG001 - it holds for what is started
    """Return a function that runs a script in a fresh shell with the extension loaded.

    Warnings are errors there; the script fills `seen`, which is returned. It is a new process: a fork
    has holes in its heap, and what a command touches in them and gives back is 0.1 MiB and more.
    """

    def run(script: str, config: Mapping[str, Any] | None = None) -> Any:
        program = (
            DRIVER + textwrap.dedent(script) + "\nprint(json.dumps(seen), flush=True)\nos._exit(0)\n"
        )
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", program, json.dumps(config or {})],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            cwd=tmp_path,
            env={**os.environ, **IN_EACH, "IPYTHONDIR": str(tmp_path / "ipython")},
        )
        assert (0, "") == (done.returncode, done.stderr), done.stdout
        assert "Error in callback" not in done.stdout
        return json.loads(done.stdout.splitlines()[-1])

    return run
