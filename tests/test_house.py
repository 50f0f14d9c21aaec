"""The house: who imports whom, how long a module is, and what an import costs in a fresh interpreter."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("pytest_imu", "ipython_hooks")
MAX_LINES = 300

LOADED_BY = """
import importlib, json, pkgutil, sys

importlib.import_module(sys.argv[2])  # what is loaded before that is not ours
before = set(sys.modules)
module = importlib.import_module(sys.argv[1])
if sys.argv[3:]:
    for found in pkgutil.walk_packages(module.__path__, module.__name__ + "."):
        importlib.import_module(found.name)
print(json.dumps(sorted(set(sys.modules) - before)))
"""


@pytest.fixture
def loaded_by(run_python: Callable[..., list[str]]) -> Callable[..., set[str]]:
    """Return a function that tells which modules an import loads on top of another's."""

    def loaded(name: str, *, on_top_of: str = "sys", submodules: bool = False) -> set[str]:
        return set(run_python(LOADED_BY, name, on_top_of, *["submodules"] * submodules))

    return loaded


def test_core_knows_no_front_end(loaded_by: Callable[..., set[str]]) -> None:
    """The core with all its modules loads neither pytest nor IPython, nor anything heavy."""
    loaded = loaded_by("pytest_imu.core", submodules=True)
    assert {"pytest_imu.core.meter", "pytest_imu.core.budgets", "pytest_imu.core.units"} < loaded
    unwanted = {"pytest", "_pytest", "pluggy", "IPython", "numpy", "psutil", "memory_profiler"}
    assert set() == loaded & unwanted
    others = {name for name in loaded if name.startswith("pytest_imu.")}
    assert set() == {name for name in others if not name.startswith("pytest_imu.core")}


def test_package_loads_nothing_of_its_own(loaded_by: Callable[..., set[str]]) -> None:
    """Importing the package alone loads the package alone."""
    assert {"pytest_imu"} == {name for name in loaded_by("pytest_imu") if name.startswith("pytest_imu")}


def test_plugin_is_light(loaded_by: Callable[..., set[str]]) -> None:
    """On top of pytest itself, the plugin loads nothing that is heavy or not its own."""
    loaded = loaded_by("pytest_imu.plugin", on_top_of="pytest")
    assert "pytest_imu.plugin" in loaded
    heavy = {"psutil", "numpy", "IPython", "ctypes", "asyncio", "memory_profiler", "xdist", "hypothesis"}
    assert set() == loaded & {*heavy, "jinja2", "pytest_imu.html.page"}


def test_measuring_is_light(loaded_by: Callable[..., set[str]]) -> None:
    """So is measure(), for those who measure without pytest."""
    loaded = loaded_by("pytest_imu.core.meter")
    assert "pytest_imu.core.memory.source" in loaded
    assert set() == loaded & {"psutil", "ctypes", "json", "subprocess", "asyncio", "pytest"}


@pytest.mark.parametrize("name", ["pytest_imu.__main__", "pytest_imu.kinds"])
def test_verbs_start_without_pytest(loaded_by: Callable[..., set[str]], name: str) -> None:
    """What works on files does not wait for pytest, whose import is half of their start."""
    loaded = loaded_by(name)
    assert name in loaded
    assert set() == loaded & {"pytest", "_pytest", "jinja2", "numpy"}


def modules() -> dict[str, Path]:
    """Return all modules of the project, by their dotted names."""
    paths = [path for package in PACKAGES for path in ROOT.joinpath(package).rglob("*.py")]
    return {dotted_name(path): path for path in paths}


def dotted_name(path: Path) -> str:
    """Return a module's name; a package's is that of its folder."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imported_by(node: ast.AST, name: str, *, is_package: bool) -> Iterator[str]:
    """Give all that a module imports, late too; what only type checkers see is none of it."""
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
        for other in node.orelse:
            yield from imported_by(other, name, is_package=is_package)
        return
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        package = name.split(".")[: len(name.split(".")) + is_package - node.level]
        base = ".".join([*(package if node.level else []), *([node.module] if node.module else [])])
        yield from (f"{base}.{alias.name}" for alias in node.names)
    for child in ast.iter_child_nodes(node):
        yield from imported_by(child, name, is_package=is_package)


@pytest.fixture(scope="module")
def imports() -> Mapping[str, set[str]]:
    """Return what each module imports: a module of the project, or another's name as it is written."""
    known = modules()

    def nearest(name: str) -> str:
        """Return the module that a name is from, which may be a function of it."""
        parts = name.split(".")
        heads = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
        return next((head for head in heads if head in known), name)

    found = {}
    for name, path in known.items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        written = imported_by(tree, name, is_package=path.name == "__init__.py")
        found[name] = {nearest(one) for one in written} - {name}
    return found


def arrows(imports: Mapping[str, set[str]], room: str, *others: str) -> set[str]:
    """Return the imports that lead from a room to others."""
    return {
        f"{name} -> {other}"
        for name, imported in imports.items()
        for other in imported
        if is_in(name, room) and any(is_in(other, one) for one in others)
    }


def is_in(name: str, room: str) -> bool:
    """Whether a module is the room, or stands in it."""
    return f"{name}.".startswith(f"{room}.")


def test_imports_make_no_circle(imports: Mapping[str, set[str]]) -> None:
    """No modules import each other, not by way of others and not late."""
    assert "pytest_imu.core.meter" in imports["pytest_imu.recording.recorder"]
    assert "pytest_imu.core.children.sampler" in imports["pytest_imu.core.meter"]  # late
    TopologicalSorter(imports).prepare()  # CycleError names a circle


@pytest.mark.parametrize(
    ("room", "others"),
    [
        ("pytest_imu.core", ("pytest", "_pytest", "IPython")),
        (
            "pytest_imu.report",
            ("pytest_imu.isolation", "pytest_imu.simulation", "pytest_imu.why", "pytest_imu.html"),
        ),
        ("pytest_imu.recording", ("pytest_imu.workers", "pytest_imu.report", "pytest_imu.why")),
        *((f"pytest_imu.{room}", ("pytest_imu.plugin",)) for room in ("core", "recording", "report")),
        ("pytest_imu", ("ipython_hooks",)),
        ("ipython_hooks", ("pytest", *(f"pytest_imu.{room}" for room in ("recording", "report")))),
        ("ipython_hooks", ("pytest_imu.isolation", "pytest_imu.why.explain", "pytest_imu.why.phases")),
    ],
)
def test_arrows_point_one_way(
    imports: Mapping[str, set[str]], room: str, others: tuple[str, ...]
) -> None:
    """A room does not know those that stand on it."""
    assert arrows(imports, room, room)
    assert set() == arrows(imports, room, *others)


def test_core_knows_only_itself(imports: Mapping[str, set[str]]) -> None:
    """Of this project the core imports the core alone."""
    inside = arrows(imports, "pytest_imu.core", "pytest_imu.core")
    assert inside == arrows(imports, "pytest_imu.core", *PACKAGES)


def test_no_module_is_long() -> None:
    """A module is at most 300 lines long."""
    lengths = {
        name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in modules().items()
    }
    assert {} == {name: lines for name, lines in lengths.items() if lines > MAX_LINES}
