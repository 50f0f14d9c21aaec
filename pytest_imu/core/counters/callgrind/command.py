"""How a program is started under callgrind, and whether this one was."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pytest_imu.core.counters.source import CannotCountError

MIN_VERSION = (3, 19)
ASKING_TIMEOUT_S = 10
MAPS = Path("/proc/self/maps")
MIN_LINE_BYTES = 32
"""valgrind refuses a line that is shorter than the widest register it simulates."""
MAX_SIZE_BYTES = 2**31 - 1

_TOOL = re.compile(r"/([a-z]+)-[a-z0-9_]+-linux$", re.MULTILINE)
_CACHE = re.compile(r"(I1|D1|LL)=([0-9]{1,10}),([0-9]{1,10}),([0-9]{1,10})")
_EXAMPLE = "I1=32768,8,64 D1=32768,8,64 LL=8388608,16,64"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cache:
    """One simulated cache."""

    size_bytes: int
    ways: int
    line_bytes: int

    def __str__(self) -> str:
        return f"{self.size_bytes},{self.ways},{self.line_bytes}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Caches:
    """The simulated caches; as given here, a usual desktop's, the same on every machine."""

    instructions: Cache = Cache(size_bytes=32768, ways=8, line_bytes=64)
    data: Cache = Cache(size_bytes=32768, ways=8, line_bytes=64)
    last: Cache = Cache(size_bytes=8388608, ways=16, line_bytes=64)

    def __str__(self) -> str:
        return f"I1={self.instructions} D1={self.data} LL={self.last}"


def parse_caches(text: str) -> Caches:
    """Return the caches in a text such as "I1=32768,8,64 D1=32768,8,64 LL=8388608,16,64".

    Each is its size in bytes, its ways and the bytes of a line; one that is not named is as usual.
    ValueError says what valgrind would refuse, and what is accepted.
    """
    named: dict[str, Cache] = {}
    for word in text.split():
        match = _CACHE.fullmatch(word)
        if match is None or match[1] in named:
            message = f"{word!r} is not accepted in the caches; each of these is, once: {_EXAMPLE}"
            raise ValueError(message)
        cache = Cache(size_bytes=int(match[2]), ways=int(match[3]), line_bytes=int(match[4]))
        if fault := _fault(cache):
            message = f"{word!r} is not accepted in the caches: {fault}"
            raise ValueError(message)
        named[match[1]] = cache
    if not named:
        message = f"{text!r} names no cache; accepted is: {_EXAMPLE}"
        raise ValueError(message)
    usual = Caches()
    return Caches(
        instructions=named.get("I1", usual.instructions),
        data=named.get("D1", usual.data),
        last=named.get("LL", usual.last),
    )


def _fault(cache: Cache) -> str | None:
    """Return what valgrind's own check of a cache would object to; None if nothing."""
    if cache.line_bytes < MIN_LINE_BYTES or not _is_power_of_two(cache.line_bytes):
        return f"a line has a power of two of bytes, {MIN_LINE_BYTES} or more"
    if not cache.line_bytes < cache.size_bytes <= MAX_SIZE_BYTES:
        return "the size is more than a line and less than 2 GiB"
    sets, rest = divmod(cache.size_bytes, cache.line_bytes * max(1, cache.ways))
    if cache.ways == 0 or rest or not _is_power_of_two(sets):
        return "size / (ways * line) must be a power of two"
    return None


def _is_power_of_two(number: int) -> bool:
    return number > 0 and number & (number - 1) == 0


def callgrind_command(
    valgrind: str, *, python: Sequence[str], caches: Caches, out_folder: Path
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
        *(f"--{one}" for one in str(caches).split()),
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


MEND = "install valgrind, {}.{} or newer".format(*MIN_VERSION)

_VERSION = re.compile(r"valgrind-([0-9]{1,4})\.([0-9]{1,4})\S*")


def find_valgrind(which: Callable[[str], str | None] = shutil.which) -> tuple[str, str]:
    """Return the path of a valgrind that is new enough, and its version as it says it.

    CannotCountError says why there is none; MEND is what to do about it.
    """
    import subprocess

    from pytest_imu.core.counters.asking import ask

    path = which("valgrind")
    if path is None:
        message = "not installed"
        raise CannotCountError(message)
    try:
        status, text = ask([path, "--version"], timeout_s=ASKING_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        message = f"{path}: {error}"
        raise CannotCountError(message) from None
    match = _VERSION.fullmatch(text)
    if status != 0 or match is None:
        message = f"{path} --version ends with status {status} and says {text[:80]!r}"
        raise CannotCountError(message)
    if (int(match[1]), int(match[2])) < MIN_VERSION:
        message = f"{path} is {match[0]}, and too old"
        raise CannotCountError(message)
    return path, match[0].removeprefix("valgrind-")
