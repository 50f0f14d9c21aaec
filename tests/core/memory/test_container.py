"""The container's limit, as the files of cgroups tell it; and sizes as people type them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from pytest_imu.core.invalid import InvalidValueError
from pytest_imu.core.memory.container import container_limit_bytes, machine_bytes, whole_bytes
from pytest_imu.core.sizes import Cap, parse_cap

GIB = 2**30
V2, V1 = "sys/fs/cgroup/", "sys/fs/cgroup/memory/"


@pytest.mark.parametrize(
    ("cgroup", "files", "expected"),
    [
        ("0::/\n", {V2 + "memory.max": "8589934592\n"}, 8 * GIB),
        ("0::/\n", {V2 + "memory.max": "max\n"}, None),
        ("0::/\n", {}, None),
        ("0::/pod/app\n", {V2 + "pod/app/memory.max": "max", V2 + "pod/memory.max": "1024"}, 1024),
        ("0::/pod/app\n", {V2 + "pod/app/memory.max": "512", V2 + "pod/memory.max": "1024"}, 512),
        ("0::/of/the/host\n", {V2 + "memory.max": "4096"}, 4096),
        ("0::/../../other\n", {V2 + "memory.max": "4096"}, 4096),
        ("5:cpu:/\n4:memory:/docker/1\n0::/\n", {V1 + "docker/1/memory.limit_in_bytes": "77"}, 77),
        ("4:memory:/docker/1\n", {V1 + "memory.limit_in_bytes": "88"}, 88),
        ("4:memory:/\n", {V1 + "memory.limit_in_bytes": "9223372036854771712"}, None),
        ("4:memory:/\n", {V1 + "memory.limit_in_bytes": "no number"}, None),
        ("4:memory:/\n0::/\n", {V1 + "memory.limit_in_bytes": "99", V2 + "memory.max": "66"}, 66),
        ("", {V2 + "memory.max": "4096"}, None),
        ("what is this", {V2 + "memory.max": "4096"}, None),
    ],
)
def test_limit(tmp_path: Path, cgroup: str, files: Mapping[str, str], expected: int | None) -> None:
    """The lowest limit counts, of the process's own cgroup and of all above it."""
    for name, text in {"proc/self/cgroup": cgroup, **files}.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert expected == container_limit_bytes(tmp_path)


def test_no_proc_is_no_limit(tmp_path: Path) -> None:
    """Where nothing tells, there is none known."""
    assert container_limit_bytes(tmp_path) is None


@pytest.mark.needs_proc
def test_here_there_is_no_more_than_the_machine_has() -> None:
    """What there is, is known here, and the machine's memory is the most it can be."""
    assert 2**26 < whole_bytes() <= machine_bytes()


@pytest.mark.parametrize(
    ("text", "cap", "of_ten"),
    [
        ("8GiB", Cap(text="8GiB", size_bytes=8 * GIB), 8 * GIB),
        (" 500 MB ", Cap(text="500 MB", size_bytes=500_000_000), 500_000_000),
        ("90%", Cap(text="90%", percent=90.0), 9),
        ("12.5 %", Cap(text="12.5 %", percent=12.5), 1),
    ],
)
def test_cap(text: str, cap: Cap, of_ten: int) -> None:
    """A size is itself, a share is of what there is."""
    assert cap == parse_cap(text)
    assert of_ten == cap.of(10)


@pytest.mark.parametrize("text", ["", "8", "0%", "101%", "-5%", "0GiB", "x%", "1e3MiB", "nan%"])
def test_no_cap(text: str) -> None:
    """What is neither is refused."""
    with pytest.raises(
        InvalidValueError, match="expected a size with its unit, such as 8GiB, or a share"
    ):
        parse_cap(text)
