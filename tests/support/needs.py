"""What tests need of the machine, each with the words in which a skip says that it is lacking."""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import mmap
import os
import platform
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

PARANOID = Path("/proc/sys/kernel/perf_event_paranoid")


def kernel_peaks_work() -> bool:
    """Whether this process may reset its high-water mark, tried by hand, without the package."""
    try:
        spike = mmap.mmap(-1, 16 * 2**20)
        spike.write(bytes(16 * 2**20))
        spike.close()
        before = high_water_kib()
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        return high_water_kib() < before
    except OSError:
        return False


def high_water_kib() -> int:
    """Return VmHWM as the kernel prints it."""
    text = Path("/proc/self/status").read_text(encoding="utf-8", errors="replace")
    return int(text.partition("VmHWM:")[2].split()[0])


def malloc_trim_works() -> bool:
    """Whether the C library is glibc, which can give freed memory back."""
    return platform.libc_ver()[0] == "glibc" and hasattr(ctypes.CDLL(None), "malloc_trim")


def perf_counts(event: str) -> bool:
    """Whether this machine has a perf that counts *event* of a process of its own."""
    perf = shutil.which("perf")
    if perf is None:
        return False
    command = [perf, "stat", "-x", ";", "-e", event, sys.executable, "-c", ""]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    return done.returncode == 0 and f";{event}" in done.stderr and "<not" not in done.stderr


def kernel_counts() -> bool:
    """Whether the kernel lets this process count its own page faults, asked without the package."""
    number = {"x86_64": 298, "aarch64": 241, "riscv64": 241}.get(platform.machine())
    if not sys.platform.startswith("linux") or number is None:
        return False
    # A software event (1), the size of what follows, page faults (2), and what is not left out: all.
    attr = struct.pack("<IIQ", 1, 112, 2).ljust(112, b"\0")
    descriptor = ctypes.CDLL(None).syscall(number, attr, 0, -1, -1, 8)
    if descriptor >= 0:
        os.close(descriptor)
    return bool(descriptor >= 0)


def valgrind_works() -> bool:
    """Whether there is a valgrind that is 3.19 or newer."""
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        return False
    command = [valgrind, "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    numbers = done.stdout.partition("-")[2].split(".")[:2]
    return [int(number) for number in numbers if number.isdecimal()] >= [3, 19]


def is_installed(package: str) -> bool:
    """Whether a package can be imported, without importing it.

    Pytester forgets at its test's end what was imported meanwhile, and numpy cannot be loaded twice.
    """
    return importlib.util.find_spec(package) is not None


NEEDS: Mapping[str, tuple[Callable[[], bool], str]] = {
    "needs_kernel_peaks": (
        kernel_peaks_work,
        "the high-water mark cannot be reset here: not Linux, or /proc/self/clear_refs is refused",
    ),
    "needs_proc": (
        Path("/proc/self/fd").exists,
        "there is no /proc here to read this process's memory from",
    ),
    "needs_fork": (lambda: hasattr(os, "fork"), "this platform cannot fork"),
    "needs_root": (
        lambda: hasattr(os, "geteuid") and os.geteuid() == 0,
        "only root can become a user who may not reset the high-water mark",
    ),
    "needs_kernel_counts": (
        kernel_counts,
        "the kernel does not let this process count: no perf_event_open here, or it is refused",
    ),
    "needs_user_space_counts": (
        lambda: kernel_counts() and os.geteuid() == 0 and PARANOID.read_text(encoding="ascii") == "2\n",
        "only root can give up its sight of the kernel, and perf_event_paranoid must be 2 for that",
    ),
    "needs_perf": (
        lambda: perf_counts("page-faults"),
        "there is no perf here that may count this user's own page faults",
    ),
    "needs_cache_misses": (
        lambda: perf_counts("cache-misses"),
        "this machine shows no hardware counters: no PMU, or perf is refused",
    ),
    "needs_valgrind": (valgrind_works, "there is no valgrind 3.19 or newer here"),
    "needs_chromium": (
        lambda: is_installed("selenium") and all(map(shutil.which, ("chromium", "chromedriver"))),
        "there is no chromium with its chromedriver here, or no selenium to drive it",
    ),
    "needs_lab": (
        lambda: (
            all(map(is_installed, ("jupyterlab", "selenium", "matplotlib", "numpy")))
            and all(map(shutil.which, ("chromium", "chromedriver")))
        ),
        "there is no JupyterLab here, or no Chromium: pip install 'pytest-imu[lab]', and chromedriver",
    ),
    "needs_mallinfo2": (
        lambda: platform.libc_ver()[0] == "glibc" and hasattr(ctypes.CDLL(None), "mallinfo2"),
        "this C library has no mallinfo2: it is not glibc, or one before 2.33",
    ),
    "needs_malloc_trim": (malloc_trim_works, "this C library has no malloc_trim: it is not glibc"),
    **{
        f"needs_{package}": (functools.partial(is_installed, package), "pip install 'pytest-imu[full]'")
        for package in ("gevent", "ipykernel", "matplotlib", "memray", "numpy", "pandas", "polars")
    },
}
"""Markers that skip a test where the machine lacks something, and say so in the summary."""
