"""Runs the person's own code for a magic, and shows its errors as if they came from a plain command."""

from __future__ import annotations

import ast
import contextlib
import inspect
from typing import Any

from ipython_hooks.arguments import CommandError


def run_statement(shell: Any, statement: str, source: str) -> None:  # Any: shells have no common type
    """Run a statement in the person's namespace; CommandError names *source* where it cannot.

    What the statement raises passes, and its traceback begins at the statement.
    """
    cell = shell.transform_cell(statement)
    number = shell.execution_count - 1  # the shell counts a command as it begins
    name = shell.compile.cache(cell, number, raw_code=statement)
    flags = shell.compile.flags | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT  # to tell it from a mistake
    try:
        code = compile(cell, name, "exec", flags)
    except SyntaxError as error:
        message = f"{source}: {error.msg}: {(error.text or statement).strip()}"
        raise CommandError(message) from None
    if code.co_flags & inspect.CO_COROUTINE:
        message = f"{source} cannot await outside a function; %%imu lines can"
        raise CommandError(message)
    try:
        exec(code, shell.user_ns)  # noqa: S102 - it is the person's own code
    except Exception as error:
        _begin_traceback_at_code(shell, error)
        raise


def _begin_traceback_at_code(shell: Any, error: Exception) -> None:
    """Let the shell show no frames of a magic: neither ours, nor its own."""
    traceback = None if error.__traceback__ is None else error.__traceback__.tb_next
    rendered = shell.InteractiveTB.structured_traceback(type(error), error, traceback, tb_offset=0)
    with contextlib.suppress(AttributeError, TypeError):  # an error that takes no attribute
        error._render_traceback_ = lambda: rendered  # type: ignore[attr-defined]
