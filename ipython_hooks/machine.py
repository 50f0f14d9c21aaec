"""How much memory there is for this process: the container's, or the machine's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import psutil


def memory_bytes(root: Path = Path("/"), *, machine_bytes: int | None = None) -> int:
    """Return the smallest limit of the control groups this process is in, or the machine's memory."""
    total_bytes = psutil.virtual_memory().total if machine_bytes is None else machine_bytes
    return min([total_bytes, *_limits_of_groups(root)])


def _limits_of_groups(root: Path) -> Iterator[int]:
    """Give each limit on the way from the process's group up to the container's root (Linux)."""
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers not in {"", "memory"}:
            continue
        folder = root / "sys/fs/cgroup" / controllers
        name = "memory.limit_in_bytes" if controllers else "memory.max"
        group = PurePosixPath(path.lstrip("/"))
        for part in (group, *group.parents):
            try:
                text = (folder / part / name).read_text(encoding="ascii").strip()
            except (OSError, ValueError):
                continue
            if text.isdecimal():  # "max" is none
                yield int(text)
