"""What can hold memory in a shell: its names, its outputs, and what else is easily forgotten."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

Holder = tuple[str, object]
"""A name, as a person would say it, and its value."""
SHELLS_OWN = re.compile(r"_+|_i+|_i?\d+|_[iod]h|In|Out|__\w+__|imu_history|imu_last")
"""Names that IPython keeps: outputs are looked at as such, and inputs are but text."""
LAST_OUTPUTS = ("_", "__", "___")
MANY = 10_000
"""A container in an installed module is looked at if it has so many elements."""
CONTAINERS = frozenset((list, dict, set, tuple, bytes, bytearray))
NOBODYS = ("__main__", "__mp_main__", "pytest_imu", "ipython_hooks")
"""Modules that are no person's: the shell's names are looked at as such."""
LIBRARIES = frozenset(("numpy", "pandas", "polars", "pyarrow", "torch", "scipy", "xarray"))


def names_of(shell: Any) -> Iterator[Holder]:  # Any: shells have no common type
    """Give the person's own names, then the outputs that the shell keeps."""
    namespace, hidden = shell.user_ns, shell.user_ns_hidden
    for name, value in list(namespace.items()):
        own = hidden.get(name, namespace) is not value and not SHELLS_OWN.fullmatch(name)
        if own and not is_program(value):
            yield name, value
    outputs = namespace.get("_oh")
    for number, value in list(outputs.items()) if type(outputs) is dict else ():
        yield f"Out[{number}]", value
    for name in LAST_OUTPUTS:
        value = namespace.get(name)
        if value is not None and not (type(value) is str and not value):
            yield name, value


def others_of(is_over: Callable[[], bool]) -> Iterator[Holder]:
    """Give what holds memory behind a person's back: the last error, figures, caches of modules.

    Where there is no time left, installed modules are left out: there are very many.
    """
    error = getattr(sys, "last_value", None)
    if error is not None:
        yield f"the last error ({type(error).__name__})", error
    figures = getattr(sys.modules.get("matplotlib._pylab_helpers"), "Gcf", None)
    open_figures = getattr(figures, "figs", None)
    if open_figures:
        yield f"figures of matplotlib, {len(open_figures)} open", open_figures
    modules = [item for item in sys.modules.items() if type(item[1]) is ModuleType]
    own = [item for item in modules if not _is_installed(*item)]
    for name, module in own:
        yield from _all_of(name, module)
    for name, module in modules:
        if name not in NOBODYS:
            yield from _long_ones_of(name, module)
        if is_over():
            return


def _is_installed(name: str, module: ModuleType) -> bool:
    """Whether a module is Python's own, was installed, or holds the shell's names."""
    file = vars(module).get("__file__")
    return type(file) is not str or is_installed(file) or name.partition(".")[0] in NOBODYS


def is_installed(file: str) -> bool:
    """Whether a file is Python's own, or of an installed library."""
    return file.startswith((sys.prefix, sys.base_prefix)) or "-packages" in file


def _all_of(module_name: str, module: ModuleType) -> Iterator[Holder]:
    for name, value in list(vars(module).items()):
        if not is_program(value) and not name.startswith("__"):
            yield f"{module_name}.{name}", value


def _long_ones_of(module_name: str, module: ModuleType) -> Iterator[Holder]:
    """Give what is long, told from the type and the length alone: of such names there are very many."""
    for name, value in list(vars(module).items()):
        if type(value) in CONTAINERS and len(value) >= MANY and not name.startswith("__"):
            yield f"{module_name}.{name}", value


def is_program(value: object) -> bool:
    """Whether a value is a module or a class. Its type is asked: `isinstance` asks the value as well."""
    return issubclass(type(value), (ModuleType, type))


def is_of_library(kind: type) -> bool:
    """Whether a type is one of a library that keeps large arrays."""
    module = type.__getattribute__(kind, "__module__")
    return isinstance(module, str) and module.partition(".")[0] in LIBRARIES
