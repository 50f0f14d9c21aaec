"""`%%imu lines`: the statements of a cell, each in a window of its own.

The cell itself runs as any other does, with its values, its errors and its `await`: only its first line
becomes a magic without a body, and between its statements stand calls that end one window and begin the
next.
"""

from __future__ import annotations

import ast
import builtins
import itertools
import re
import shutil
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ipython_hooks.arguments import CommandError
from ipython_hooks.lines.functions import FollowedFunctions, functions_of
from ipython_hooks.lines.statements import Statements
from ipython_hooks.lines.table import LineTable
from ipython_hooks.watcher import CellInfo, CellResult, place_of

if TYPE_CHECKING:
    from ipython_hooks.session import Session

FIRST_LINE = re.compile(r"%%imu[ \t]+(?P<words>lines\b[^\n]*)\n?")
NO_BODY = "\n"
"""To IPython an empty one is a mistake."""
LEFT_OPEN = ("last", "last_expr_or_assign")
"""Where these decide what is shown, the last statement has to be the cell's own."""
_numbers = itertools.count(1)


class LinesOfCells:
    """Makes `%%imu lines` work in one shell."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._raw_cell: str | None = None
        self._running: list[MeasuredCell] = []

    def start(self) -> None:
        """Begin to look for cells that begin with it."""
        shell = self._session.shell
        shell.input_transformers_cleanup.append(_open_first_line)
        shell.ast_transformers.append(self)
        shell.events.register("pre_run_cell", self._before)
        shell.events.register("post_run_cell", self._after)

    def stop(self) -> None:
        """Undo it."""
        shell = self._session.shell
        shell.input_transformers_cleanup.remove(_open_first_line)
        if self in shell.ast_transformers:  # IPython drops one that has failed
            shell.ast_transformers.remove(self)
        shell.events.unregister("pre_run_cell", self._before)
        shell.events.unregister("post_run_cell", self._after)
        for cell in self._running:  # one of them has unloaded the extension, and goes on
            cell.let_go()
        self._running.clear()

    def begin(self, words: str, body: str) -> None:
        """Carry out the magic that the first line has become."""
        if body.strip():  # called by hand, as a notebook that was exported does
            self._session.shell.run_cell(f"%%imu {words}\n{body}").raise_error()
            return
        cell = self._running[-1] if self._running else None
        if cell is not None and not cell.has_begun:  # a silent cell is not seen, and runs as it is
            cell.begin(words)

    def visit(self, module: ast.Module) -> ast.Module:
        """Put calls between the statements of a cell: what IPython calls with each one's tree."""
        raw_cell, self._raw_cell = self._raw_cell, None
        if raw_cell is not None:
            cell = MeasuredCell(self._session, raw_cell, module)
            self._running.append(cell)
            cell.put_calls_between()
        return module

    def _before(self, info: CellInfo) -> None:
        self._raw_cell = info.raw_cell if FIRST_LINE.match(info.raw_cell.lstrip()) else None

    def _after(self, result: CellResult | None) -> None:
        self._raw_cell = None
        place = place_of(result, self._running)
        if place is not None:
            self._end(place, raised=result is None or not result.success)

    def _end(self, place: int, *, raised: bool) -> None:
        """End and show a cell that runs; those that it ran and that never said so have ended too."""
        cell, *others = self._running[place:]
        del self._running[place:]
        try:
            for one in reversed(others):
                one.end()
            cell.end()
            cell.show(raised=raised)
        except Exception as error:  # noqa: BLE001 - no fault of the measuring is the cell's
            self._session.say([f"the lines are not known: {type(error).__name__}: {error}"])


class MeasuredCell:
    """One cell that runs, with the calls between its statements."""

    def __init__(self, session: Session, raw_cell: str, module: ast.Module) -> None:
        self.raw_cell = raw_cell
        self._session = session
        self._module = module
        self._name = f"__imu_reach_{next(_numbers)}__"
        self._nodes: Sequence[ast.stmt] = module.body[1:]
        self._reader: Statements | FollowedFunctions | None = None

    @property
    def has_begun(self) -> bool:
        """Whether it is being measured."""
        return self._reader is not None

    def put_calls_between(self) -> None:
        """Rewrite the cell's tree; the first statement is the magic."""
        if not self._nodes:
            return
        shell = self._session.shell
        body = self._module.body[:1]
        for number, node in enumerate(self._nodes):
            body += [self._call(node, number), node]
        last = self._nodes[-1]
        if isinstance(last, ast.Expr) and not self.raw_cell.rstrip().endswith(";"):
            # Its window ends before the value is shown: to show it may take more than to make it.
            last.value = self._call(last, None, last.value).value
        elif shell.ast_node_interactivity not in LEFT_OPEN:
            body.append(self._call(last, None))  # before plots are drawn, which is none of its work
        self._module.body = body

    def begin(self, words: str) -> None:
        """Begin to measure; raises CommandError where the words make no sense."""
        if not self._nodes:
            raise CommandError("%%imu lines: the cell has no statements to measure")
        options = words.removeprefix("lines").strip()
        self._reader = (
            FollowedFunctions.named(self._session, functions_of(options))
            if options
            else Statements(self._session, self._nodes)
        )
        self._reader.begin()
        setattr(builtins, self._name, self._reader.reach)  # `%reset` empties only the namespace

    def end(self) -> None:
        """Measure no more."""
        vars(builtins).pop(self._name, None)
        if self._reader is not None:
            self._reader.end()

    def let_go(self) -> None:
        """Measure no more, and let the calls in the cell do nothing."""
        if self._reader is not None:
            self._reader.end()
            setattr(builtins, self._name, _pass_on)

    def show(self, *, raised: bool) -> None:
        """Show what was measured, and keep it as `imu_last`."""
        if self._reader is not None:
            table = self._reader.table(self.raw_cell, raised=raised)
            self._session.keep_last(table)
            _show(self._session, table)

    def _call(self, place: ast.stmt, number: int | None, *values: ast.expr) -> ast.Expr:
        """Return a call that ends a statement's window, and begins that of another by its number."""
        function, which = ast.Name(self._name, ast.Load()), ast.Constant(number)
        call = ast.Call(function, [which, *values], [])
        statement = ast.Expr(call)
        for node in (statement, call, function, which):
            ast.copy_location(node, place)
        return statement


def _pass_on(number: int | None, value: object = None) -> object:  # noqa: ARG001 - as the cell calls it
    return value


def _open_first_line(lines: list[str]) -> list[str]:
    """Make of the cell's first line a magic of its own, so that the rest is a plain cell."""
    first = FIRST_LINE.fullmatch(lines[0]) if lines else None
    if first is None:
        return lines
    words = first["words"].strip()
    return [f"get_ipython().run_cell_magic('imu', {words!r}, {NO_BODY!r})\n", *lines[1:]]


# While a cell is typed it is still one that begins with a cell's magic, and ends with an empty line.
_open_first_line.has_side_effects = True  # type: ignore[attr-defined]  # IPython looks for it


def _show(session: Session, table: LineTable) -> None:
    if session.in_kernel:
        from IPython.display import display

        display(table)  # type: ignore[no-untyped-call]  # IPython is partly typed
    else:
        width = shutil.get_terminal_size().columns
        session.print_lines(table.text_lines(width=width))
