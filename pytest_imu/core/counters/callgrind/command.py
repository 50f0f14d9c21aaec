"""How a program is started under callgrind, and whether this one was."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from pytest_imu.core.counters.source import CannotCountError
from pytest_imu.core.invalid import InvalidValueError

MIN_VERSION = (3, 19)
ASKING_TIMEOUT_S = 10
MAPS = Path("/proc/self/maps")
_TOOL = re.compile(r"/([a-z]+)-[a-z0-9_]+-linux$", re.MULTILINE)
USUAL_CACHES = "I1=32768,8,64 D1=32768,8,64 LL=8388608,16,64"
"""A usual desktop's caches, the same on every machine: each cache's bytes, ways, and bytes of a line."""
# No zero: over no ways valgrind stumbles, where it has words for other sizes that it does not like.
_CACHE = re.compile(r"(I1|D1|LL)=((?:[1-9][0-9]{0,9},){2}[1-9][0-9]{0,9})")


def parse_caches(text: str) -> str:
    """Return all three caches, where *text* may name some: "D1=49152,12,64". One not named is as usual.

    Raises InvalidValueError for another form. Which sizes will do, valgrind says: see `why_refused`.
    """
    matches = [_CACHE.fullmatch(word) for word in text.split()]
    named = {match[1]: match[2] for match in matches if match is not None}
    if not named or len(named) < len(matches):
        raise InvalidValueError(text, f"caches such as {USUAL_CACHES}, each at most once")
    return " ".join(f"{name}={named.get(name, size)}" for name, size in _CACHE.findall(USUAL_CACHES))


def why_refused(valgrind: str, caches: str) -> str | None:
    """Return what valgrind has against these caches; None where it simulates them."""
    from pytest_imu.core.counters.asking import ask

    command = [valgrind, "-q", "--tool=callgrind", "--cache-sim=yes", *_cache_options(caches)]
    command += ["--callgrind-out-file=/dev/null", "/bin/sh", "-c", ":"]
    try:
        status, text = ask(command, timeout_s=ASKING_TIMEOUT_S)
    except OSError as error:
        return str(error)
    # "valgrind: " or "==PID== " stands before each line, and "--PID-- " before what is no fault.
    lines = [line.partition(" ")[2].strip() for line in text.splitlines() if line[:2] != "--"]
    words = " ".join(lines).partition(" Use --help")[0]
    return (words or f"it ends with status {status}") if status else None


def _cache_options(caches: str) -> list[str]:
    return [f"--{one}" for one in caches.split()]


def callgrind_command(
    valgrind: str, *, python: Sequence[str], caches: str, out_folder: Path
) -> list[str]:
    """Return the command that runs *python*, an interpreter and its arguments, under callgrind.

    All that valgrind writes goes to *out_folder*, a private and absolute one: dumps and its log. Its
    name should have the same length in every run.
    """
    return [
        valgrind,
        "-q",
        "--tool=callgrind",
        "--cache-sim=yes",
        "--branch-sim=yes",  # 5 % slower, and no option is needed to have branch-misses
        *_cache_options(caches),
        "--instr-atstart=no",
        # Programs that tests start run as they always do.
        "--trace-children=no",
        f"--callgrind-out-file={out_folder / 'callgrind.out.%p'}",
        # Even a quiet valgrind warns of caches that it cannot imitate, though others are named.
        f"--log-file={out_folder / 'valgrind.log'}",
        # Nothing but this process gives orders: no pipes for a debugger, and no looking into them.
        "--vgdb=no",
        *python,
    ]


def running_tool(environ: Mapping[str, str] = os.environ, *, maps: Path = MAPS) -> str | None:
    """Return the name of the valgrind tool that runs this process, such as "callgrind"; usually None.

    A look into the environment where there is no valgrind, which preloads a library of its own and
    hides it from programs that are started from here.
    """
    if "vgpreload_core" not in environ.get("LD_PRELOAD", ""):
        return None
    try:
        text = maps.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The tool is mapped like any file: libexec/valgrind/callgrind-amd64-linux.
    match = _TOOL.search(text)
    return None if match is None else match[1]


def running_under_callgrind() -> bool:
    """Tell whether callgrind runs this process; microseconds where there is no valgrind."""
    return running_tool() == "callgrind"


def valgrind_arguments() -> tuple[str, ...]:
    """Return the command line that started this process, valgrind's own part included."""
    # valgrind shows a program its own command line in /proc/self/cmdline, but not here.
    try:
        text = Path(f"/proc/self/task/{os.getpid()}/cmdline").read_bytes()
    except OSError:
        return ()
    return tuple(os.fsdecode(word) for word in text.split(b"\0")[:-1])


def option(arguments: Sequence[str], name: str) -> str | None:
    """Return the value of one of valgrind's own options; the last one counts."""
    own = [word for word in arguments if word.startswith(f"--{name}=")]
    return own[-1].partition("=")[2] if own else None


def dumps_at(arguments: Sequence[str], *, pid: int, start_folder: Path) -> Path:
    """Return where callgrind writes the dumps of a process: their path without its last number."""
    name = option(arguments, "callgrind-out-file") or "callgrind.out.%p"
    return start_folder / name.replace("%p", str(pid))


FIX = "install valgrind, {}.{} or newer".format(*MIN_VERSION)

_VERSION = re.compile(r"valgrind-([0-9]{1,4})\.([0-9]{1,4})\S*")


def find_valgrind(which: Callable[[str], str | None] = shutil.which) -> tuple[str, str]:
    """Return the path of a valgrind that is new enough, and its version as it says it.

    CannotCountError says why there is none; FIX is what to do about it.
    """
    from pytest_imu.core.counters.asking import ask

    path = which("valgrind")
    if path is None:
        raise CannotCountError("not installed")
    try:
        status, text = ask([path, "--version"], timeout_s=ASKING_TIMEOUT_S)
    except OSError as error:
        raise CannotCountError(f"{path}: {error}") from None
    match = _VERSION.fullmatch(text)
    if status != 0 or match is None:
        raise CannotCountError(f"{path} --version ends with status {status} and says {text[:80]!r}")
    if (int(match[1]), int(match[2])) < MIN_VERSION:
        raise CannotCountError(f"{path} is {match[0]}, and too old")
    return path, match[0].removeprefix("valgrind-")
