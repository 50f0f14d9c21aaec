"""The CPU for which a simulated run's libraries choose their code: the same one on every host.

glibc, numpy and OpenBLAS have several versions of their innermost loops, and take the fastest that the
processor can run. Which they take decides what is counted.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

from pytest_imu.core.counters.asking import ask

ASKING_TIMEOUT_S = 60
NUMPY_VARIABLE = "NPY_DISABLE_CPU_FEATURES"
BASELINE: Mapping[str, Mapping[str, str]] = {
    "x86_64": {
        # What came after 2010, what each maker's processors prefer, and sizes of caches.
        "GLIBC_TUNABLES": "glibc.cpu.hwcaps="
        "-AVX,-AVX2,-AVX512F,-AVX512VL,-AVX512BW,-FMA,-FMA4,-BMI1,-BMI2,-LZCNT,-MOVBE,-ERMS,-FSRM,-RTM,"
        "-Slow_BSF,-Fast_Rep_String,-Prefer_FSRM,-Prefer_PMINUB_for_stringop,-AVX_Fast_Unaligned_Load,"
        "Fast_Unaligned_Load,Fast_Unaligned_Copy"
        ":glibc.cpu.x86_data_cache_size=0x8000"
        ":glibc.cpu.x86_shared_cache_size=0x100000"
        ":glibc.cpu.x86_non_temporal_threshold=0xc0000",
        "OPENBLAS_CORETYPE": "Nehalem",
    },
    "aarch64": {"GLIBC_TUNABLES": "glibc.cpu.name=generic", "OPENBLAS_CORETYPE": "ARMV8"},
}
VARIABLES = ("GLIBC_TUNABLES", "OPENBLAS_CORETYPE", NUMPY_VARIABLE)
READ_AT_IMPORT = VARIABLES[1:]
"""What is looked at as a library is loaded, and not as the process begins."""
LIBRARIES = ("numpy", "scipy.linalg")
"""What looks at them: numpy, and an OpenBLAS that comes with either."""
NUMPY_FEATURES = ("AVX", "F16C", "FMA3", "AVX2", "X86_V3", "ASIMDHP", "ASIMDDP", "ASIMDFHM")
"""What numpy may choose its loops by, and valgrind has. (It warns of one that the processor lacks.)"""
ASK_NUMPY = """
try:
    from numpy._core import _multiarray_umath as numpy
except ImportError:
    from numpy.core import _multiarray_umath as numpy
print(*(name for name in numpy.__cpu_dispatch__ if numpy.__cpu_features__.get(name)))
"""


def baseline(environment: Mapping[str, str], *, machine: str | None = None) -> dict[str, str]:
    """Return the variables that choose the oldest code, but for those that are set already."""
    machine = os.uname().machine if machine is None else machine
    wanted = dict(BASELINE.get(machine, {}))
    if wanted and NUMPY_VARIABLE not in environment:
        chosen_by = [name for name in _asked_of_numpy(environment) if name in NUMPY_FEATURES]
        if chosen_by:
            wanted[NUMPY_VARIABLE] = " ".join(chosen_by)
    return {name: value for name, value in wanted.items() if name not in environment}


def starts_with(variables: Mapping[str, str], environment: Mapping[str, str]) -> bool:
    """Tell whether a program starts so: a C library may have been built for newer processors alone."""
    try:
        status, _ = ask(
            [sys.executable, "-I", "-S", "-c", ""],
            timeout_s=ASKING_TIMEOUT_S,
            environment={**environment, **variables},
        )
    except OSError:
        return False
    return status == 0


def _asked_of_numpy(environment: Mapping[str, str]) -> Sequence[str]:
    # Another process asks: this one may have no use for numpy.
    if importlib.util.find_spec("numpy") is None:
        return ()
    try:
        status, text = ask(
            [sys.executable, "-W", "ignore", "-c", ASK_NUMPY],
            timeout_s=ASKING_TIMEOUT_S,
            environment=environment,
        )
    except OSError:
        return ()
    return () if status else text.split()


class AtImport:
    """Sets variables while a library that looks at them is imported, and at no other time.

    So the tests, and the programs that they start, have the environment that they would have without.
    """

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = dict(variables)
        self._is_looking = False

    def find_spec(
        self,
        name: str,
        path: Sequence[str] | None = None,  # noqa: ARG002 - as Python calls it
        target: ModuleType | None = None,  # noqa: ARG002 - as Python calls it
    ) -> ModuleSpec | None:
        """Return what the other finders find, with the variables set while it is executed."""
        if name not in LIBRARIES or self._is_looking:
            return None
        self._is_looking = True
        try:
            spec = importlib.util.find_spec(name)
        finally:
            self._is_looking = False
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module
            spec.loader.__dict__["exec_module"] = lambda module: self._execute(execute, module)
        return spec

    def _execute(self, execute: Callable[[ModuleType], None], module: ModuleType) -> None:
        with self._set():
            execute(module)

    @contextlib.contextmanager
    def _set(self) -> Iterator[None]:
        missing = {name: value for name, value in self._variables.items() if name not in os.environ}
        os.environ.update(missing)
        try:
            yield
        finally:
            for name in missing:
                os.environ.pop(name, None)
