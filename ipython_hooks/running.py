"""A statement or cell, run as the shell would run it, with no frame of ours in its errors."""

from __future__ import annotations

import ast
import contextlib
import inspect
import re
from collections.abc import Callable, Coroutine
from types import CodeType, TracebackType
from typing import Any, TypeVar

from ipython_hooks.arguments import CommandError, cell_options, split_count

R = TypeVar("R")
AWAITED = (
    "await get_ipython().magics_manager.registry['ImuMagics'].awaited({line!r}, {source!r}, {above})\n"
)
RUN = re.compile(r"\s*%imu\s+run\s+(.*)", re.DOTALL)
CELL = re.compile(r"%%imu(?:\s(.*))?\n?")


class Statement:
    """Compiled once, and run as often as wanted, in the person's own namespace."""

    def __init__(self, shell: Any, source: str, *, lines_above: int = 0) -> None:
        """*lines_above* stand over the source in its cell; an error names the line in the cell."""
        compiler = shell.compile
        cell = "\n" * lines_above + shell.transform_cell(source)
        name = compiler.cache(cell, shell.displayhook.prompt_count, raw_code=source)
        body = shell.transform_ast(compiler.ast_parse(cell, filename=name)).body
        last = body.pop() if body and isinstance(body[-1], ast.Expr) else None
        with compiler.extra_flags(ast.PyCF_ALLOW_TOP_LEVEL_AWAIT):
            self._body = compiler(ast.Module(body, []), name, "exec")
            self._last = None if last is None else compiler(ast.Expression(last.value), name, "eval")
        self._shell = shell
        self.source = source
        codes = [self._body] if self._last is None else [self._body, self._last]
        self.awaits = any(code.co_flags & inspect.CO_COROUTINE for code in codes)
        self.shows_value = not source.rstrip().endswith(";")

    async def run(self) -> Any:
        """Run it, and return the value of its last expression; without `await` in it nothing waits."""
        try:
            await self._run(self._body)
            return None if self._last is None else await self._run(self._last)
        except BaseException as error:
            self._show_only_its_own(error)
            raise

    async def _run(self, code: CodeType) -> Any:
        value = eval(code, self._shell.user_ns)  # noqa: S307 - it is the person's own code
        return await value if code.co_flags & inspect.CO_COROUTINE else value

    def _show_only_its_own(self, error: BaseException) -> None:
        """Let the shell show the error from the person's first line on."""
        step = error.__traceback__
        while step is not None and step.tb_frame.f_code.co_filename == __file__:
            step = step.tb_next
        own: TracebackType | None = step
        shown = self._shell.InteractiveTB
        with contextlib.suppress(AttributeError):  # an error that takes no attribute has all its frames
            error._render_traceback_ = lambda: shown.structured_traceback(  # type: ignore[attr-defined]  # IPython asks for it
                type(error), error, own, tb_offset=0
            )


def at_once(coroutine: Coroutine[Any, Any, R]) -> R:
    """Return the result of a coroutine that waits for nothing."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        result: R = end.value
        return result
    raise RuntimeError("it waits for an event loop")


def statement_at_once(shell: Any, source: str, command: str, *, instead: str = "") -> Callable[[], Any]:
    """Return what runs a statement that does not await; CommandError names *command* where it cannot."""
    try:
        statement = Statement(shell, source)
    except SyntaxError as error:
        raise CommandError(f"{command}: {error.msg}: {(error.text or source).strip()}") from None
    if statement.awaits:
        raise CommandError(f"{command} cannot await outside a function{instead}")
    return lambda: at_once(statement.run())


class WithAwait:
    """An input transformer: what is to be measured and awaits takes a form that the shell awaits.

    What does not compile is left without its magic: the shell's own error then names its line.
    """

    has_side_effects = True
    """The shell then leaves it out where it only asks whether what is typed so far is complete."""

    def __init__(self, shell: Any) -> None:  # Any: the shells have no common type
        self._shell = shell

    def __call__(self, lines: list[str]) -> list[str]:
        """Return the lines of a cell as they are to be run."""
        parts = _to_measure(lines)
        if parts is None:
            return lines
        line, source, lines_above = parts
        flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        try:
            code = compile(self._shell.transform_cell(source), "<imu>", "exec", flags)
        except SyntaxError:
            return ["\n"] * lines_above + source.splitlines(keepends=True)
        if not code.co_flags & inspect.CO_COROUTINE:
            return lines
        return [AWAITED.format(line=line, source=source, above=lines_above)]


def _to_measure(lines: list[str]) -> tuple[str, str, int] | None:
    """Return the options, the source, and how many lines stand above it, of what is to be measured."""
    first, *rest = lines or [""]
    with contextlib.suppress(CommandError):  # which the magic will say itself
        if (cell := CELL.fullmatch(first)) is not None:
            cell_options(cell[1] or "")
            return cell[1] or "", "".join(rest), 1
        if not rest and (run := RUN.fullmatch(first)) is not None:
            runs, statement = split_count(run[1].strip(), "-r", "%imu run", usual=1)
            return f"-r {runs}", statement + "\n", 0
    return None
