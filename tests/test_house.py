"""What an import costs: which modules come with it, in a fresh interpreter."""

from __future__ import annotations

from collections.abc import Callable

import pytest

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
    assert set() == loaded & heavy


def test_measuring_is_light(loaded_by: Callable[..., set[str]]) -> None:
    """So is measure(), for those who measure without pytest."""
    loaded = loaded_by("pytest_imu.core.meter")
    assert "pytest_imu.core.memory.source" in loaded
    assert set() == loaded & {"psutil", "ctypes", "json", "subprocess", "asyncio", "pytest"}
