"""How much memory there is for this process: the container's limit, else the machine's memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

NO_LIMIT_BYTES = 2**60
"""cgroup v1 has a number near 2**63 where there is no limit."""


def container_limit_bytes(root: Path = Path("/")) -> int | None:
    """Return the lowest limit of the cgroups that this process is in; None where there is none.

    Inside a container the path of a cgroup may be that of the host, which is not there: then its own
    limit stands at the top.
    """
    try:
        text = (root / "proc/self/cgroup").read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return None
    found = [size for folder, name in _folders(text) for size in _limits(root / folder, name)]
    return min(found, default=None)


def _folders(text: str) -> Iterator[tuple[Path, str]]:
    """Give each folder whose file may have a limit, and that file's name: v2's, and v1's for memory."""
    for line in text.splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        inner = PurePosixPath(path.lstrip("/"))
        if number == "0" and not controllers:
            top, name = "sys/fs/cgroup", "memory.max"
        elif "memory" in controllers.split(","):
            top, name = "sys/fs/cgroup/memory", "memory.limit_in_bytes"
        else:
            continue
        if ".." not in inner.parts:
            yield from ((Path(top, folder), name) for folder in (inner, *inner.parents))
        else:
            yield Path(top), name


def _limits(folder: Path, name: str) -> Iterator[int]:
    try:
        text = (folder / name).read_bytes().strip()
        size = NO_LIMIT_BYTES if text == b"max" else int(text)
    except (OSError, ValueError):
        return
    if 0 < size < NO_LIMIT_BYTES:
        yield size


def machine_bytes() -> int:
    """Return how much memory the machine has."""
    import psutil

    total_bytes: int = psutil.virtual_memory().total
    return total_bytes


def whole_bytes() -> int:
    """Return how much there is: the container's limit where it has one, else the machine's memory."""
    limit_bytes, all_bytes = container_limit_bytes(), machine_bytes()
    return all_bytes if limit_bytes is None else min(limit_bytes, all_bytes)
