"""Where in a test file the markers stand that limit a test, the closest first."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from pytest_imu.core.counters.source import CACHE_MISSES
from pytest_imu.history.source import SourceFile

SIZES = ("max_peak_mib", "max_delta_mib")
EVENTS = ("max_cache_misses", "max_events")
Function = ast.FunctionDef | ast.AsyncFunctionDef
Subject = tuple[str, str | None]
"""What is limited: a marker and its phase, or "max_events" and an event; None: not literal."""


@dataclass(frozen=True, slots=True)
class Marker:
    """One marker as it is written."""

    subject: Subject
    limit: ast.expr

    @property
    def value(self) -> float | None:
        """The limit, where it is a number as such."""
        value = self.limit.value if isinstance(self.limit, ast.Constant) else None
        return value if isinstance(value, int | float) and not isinstance(value, bool) else None

    @property
    def lifts(self) -> bool:
        """Whether it is `None`, which takes limits away."""
        return isinstance(self.limit, ast.Constant) and self.limit.value is None


@dataclass(frozen=True, slots=True)
class Test:
    """Where a test is defined."""

    function: Function
    classes: tuple[ast.ClassDef, ...]
    """Those that it is in, the innermost first, each before its bases."""


class Marks:
    """Finds tests and their markers in one file."""

    def __init__(self, source: SourceFile) -> None:
        self.source = source
        self._names = dict(_bound_names(source.tree))
        self._classes = {
            one.name: one for one in _definitions(source.tree.body) if isinstance(one, ast.ClassDef)
        }

    def find(self, names: Sequence[str]) -> Test | None:
        """Return the test of a class, an inner class and a function; None where it is not here."""
        bodies: list[Sequence[ast.stmt]] = [self.source.tree.body]
        classes: tuple[ast.ClassDef, ...] = ()
        for name in names[:-1]:
            found = [
                one
                for one in _definitions(bodies[0])
                if isinstance(one, ast.ClassDef) and one.name == name
            ]
            if len(found) != 1:
                return None
            own = tuple(self._with_bases(found[0]))
            classes, bodies = own + classes, [one.body for one in own]
        for body in bodies:
            functions = [
                one for one in _definitions(body) if isinstance(one, Function) and one.name == names[-1]
            ]
            if functions:
                return Test(functions[0], classes) if len(functions) == 1 else None
        return None

    def pytest_mark(self) -> str | None:
        """Return how this file spells `pytest.mark`; None where it has no name for it."""
        for wanted, spelled in (("pytest", "{}.mark"), ("pytest.mark", "{}")):
            for name, bound in self._names.items():
                if bound == wanted:
                    return spelled.format(name)
        return None

    def places(self, test: Test, parameters: str) -> Iterator[list[Marker] | str]:
        """Yield the markers of each place that a test has some from, the closest first.

        A text in their place says why they cannot be told.
        """
        yield self._of_parameters(test, parameters)
        yield list(self._markers(test.function.decorator_list))
        for one in test.classes:
            yield [*self._markers(one.decorator_list), *self._markers(_pytestmark(one.body))]
        yield list(self._markers(_pytestmark(self.source.tree.body)))

    def _of_parameters(self, test: Test, parameters: str) -> list[Marker] | str:
        """Return the markers of the `pytest.param()` that a test's id names."""
        decorators = [*test.function.decorator_list]
        for one in test.classes:
            decorators += one.decorator_list
        found: list[Marker] = []
        unknown = False
        for decorator in decorators:
            if isinstance(decorator, ast.Call) and self._is(decorator.func, "pytest.mark.parametrize"):
                for call in (node for node in ast.walk(decorator) if isinstance(node, ast.Call)):
                    if not self._is(call.func, "pytest.param"):
                        continue
                    marks = [one.value for one in call.keywords if one.arg == "marks"]
                    markers = list(self._markers(_flat(marks)))
                    if markers and (identity := _id_of(call)) is None:
                        unknown = True
                    elif markers and f"-{identity}-" in f"-{parameters}-":
                        found += markers
        return "which pytest.param() it is cannot be told" if unknown else found

    def _markers(self, expressions: Iterable[ast.expr]) -> Iterator[Marker]:
        for expression in expressions:
            call = self._resolved(expression)
            if not isinstance(call, ast.Call):
                continue
            name = (self._dotted(call.func) or "").removeprefix("pytest.mark.")
            arguments = call.args
            if name in SIZES and len(arguments) == 1:
                phases = [one.value for one in call.keywords if one.arg == "phase"]
                yield Marker((name, _text(phases[0]) if phases else "call"), arguments[0])
            elif name == "max_cache_misses" and len(arguments) == 1:
                yield Marker(("max_events", CACHE_MISSES), arguments[0])
            elif name == "max_events" and len(arguments) == len(("event", "limit")):
                yield Marker(("max_events", _text(arguments[0])), arguments[1])

    def _resolved(self, expression: ast.expr) -> ast.expr:
        """Return what a name stands for: a marker that was kept in a variable."""
        if isinstance(expression, ast.Name):
            bound = self._names.get(expression.id)
            return bound if isinstance(bound, ast.expr) else expression
        return expression

    def _dotted(self, expression: ast.expr) -> str | None:
        """Return the whole name of an expression, whatever it was imported or assigned as."""
        if isinstance(expression, ast.Name):
            bound = self._names.get(expression.id)
            return bound if bound is None or isinstance(bound, str) else self._dotted(bound)
        if isinstance(expression, ast.Attribute):
            owner = self._dotted(expression.value)
            return None if owner is None else f"{owner}.{expression.attr}"
        return None

    def _is(self, expression: ast.expr, name: str) -> bool:
        return self._dotted(expression) == name

    def _with_bases(
        self, one: ast.ClassDef, seen: frozenset[str] = frozenset()
    ) -> Iterator[ast.ClassDef]:
        yield one
        for base in one.bases:
            found = self._classes.get(base.id) if isinstance(base, ast.Name) else None
            if found is not None and found.name not in seen:
                yield from self._with_bases(found, seen | {one.name, found.name})


def _definitions(body: Iterable[ast.stmt]) -> Iterator[ast.ClassDef | Function]:
    """Yield the classes and functions of a body, also those behind an if or a try."""
    for statement in body:
        if isinstance(statement, ast.ClassDef | Function):
            yield statement
        elif isinstance(statement, ast.If | ast.Try | ast.With):
            for name in ("body", "orelse", "finalbody"):
                yield from _definitions(getattr(statement, name, ()))


def _bound_names(tree: ast.Module) -> Iterator[tuple[str, str | ast.expr]]:
    """Yield what a module's names are bound to: a whole name, or the expression that was assigned."""
    for statement in tree.body:
        match statement:
            case ast.Import(names=names):
                for one in names:
                    yield (
                        one.asname or one.name.partition(".")[0],
                        (one.name if one.asname else one.name.partition(".")[0]),
                    )
            case ast.ImportFrom(module=str(module), names=names, level=0):
                for one in names:
                    yield one.asname or one.name, f"{module}.{one.name}"
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                yield name, value


def _pytestmark(body: Iterable[ast.stmt]) -> Iterator[ast.expr]:
    for statement in body:
        match statement:
            case (
                ast.Assign(targets=[ast.Name(id="pytestmark")], value=value)
                | ast.AugAssign(target=ast.Name(id="pytestmark"), value=value)
                | ast.AnnAssign(target=ast.Name(id="pytestmark"), value=ast.expr() as value)
            ):
                yield from _flat([value])


def _flat(expressions: Iterable[ast.expr]) -> Iterator[ast.expr]:
    for expression in expressions:
        if isinstance(expression, ast.List | ast.Tuple):
            yield from expression.elts
        else:
            yield expression


def _text(expression: ast.expr) -> str | None:
    if isinstance(expression, ast.Constant) and isinstance(expression.value, str):
        return expression.value
    return None


def _id_of(call: ast.Call) -> str | None:
    """Return the id that pytest gives a parameter set; None where its values do not tell it."""
    for keyword in call.keywords:
        if keyword.arg == "id":
            return _text(keyword.value)
    if not all(isinstance(value, ast.Constant) for value in call.args):
        return None
    values = [value.value for value in call.args if isinstance(value, ast.Constant)]
    plain = all(isinstance(value, str | int | float | bool | None) for value in values)
    return "-".join(map(str, values)) if plain else None
