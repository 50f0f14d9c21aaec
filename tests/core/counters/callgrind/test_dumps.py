"""The files that callgrind dumps into: read at both ends, and removed."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_imu.core.counters.callgrind.dumps import PART_BYTES, Dumps
from pytest_imu.core.counters.source import CannotCountError

DUMP = "creator: callgrind-{version}\ncmd: {command}\nevents: Ir\nsummary: 0\n\ntotals: {count}\n"


def obeyed(*orders: str) -> None:
    """Take an order whose outcome is there already."""
    assert ("dump",) == orders


def test_dumps_are_read_and_removed(tmp_path: Path) -> None:
    """The newest part is read, by number and not by letters, and no longer there afterwards."""
    for part in (9, 10):
        dump = DUMP.format(version="3.19.0", command="python", count=part)
        (tmp_path / f"out.42.{part}").write_text(dump, encoding="utf-8")
    dumps = Dumps(["--callgrind-out-file=out.%p"], pid=42, start_folder=tmp_path)
    assert {"Ir": 10} == dumps.take(obeyed).costs
    assert ["out.42.9"] == [path.name for path in tmp_path.iterdir()]


@pytest.mark.parametrize("words", [*range(PART_BYTES - 45, PART_BYTES - 25), 3 * PART_BYTES])
def test_long_dump_is_read_at_both_ends(tmp_path: Path, words: int) -> None:
    """A dump of any length, and of any command, has its header and its totals read."""
    dump = DUMP.format(version="3.19.0", command="x" * words, count=5)
    header, totals = dump.split("\n\n")
    text = header + "\n" + "+1 2 3\n" * 10000 + totals
    (tmp_path / "callgrind.out.42.1").write_text(text, encoding="utf-8")
    assert {"Ir": 5} == Dumps([], pid=42, start_folder=tmp_path).take(obeyed).costs


def test_garbage_is_removed_too(tmp_path: Path) -> None:
    """What is no dump is a reason, and is not read a second time."""
    (tmp_path / "callgrind.out.42.1").write_bytes(b"\xff\0garbage")
    dumps = Dumps([], pid=42, start_folder=tmp_path)
    with pytest.raises(CannotCountError, match="the dump has no line 'creator:'"):
        dumps.take(obeyed)
    with pytest.raises(CannotCountError, match="callgrind wrote no dump at"):
        dumps.take(obeyed)


def test_folder_that_is_gone_is_made_anew(tmp_path: Path) -> None:
    """Where a test has removed the folder, it is there again before callgrind is told to write."""
    folder = tmp_path / "gone"
    written = DUMP.format(version="3.19.0", command="python", count=7)

    def write(*orders: str) -> None:
        obeyed(*orders)
        (folder / "callgrind.out.42.1").write_text(written, encoding="utf-8")

    assert {"Ir": 7} == Dumps([], pid=42, start_folder=folder).take(write).costs
    assert 0o700 == folder.stat().st_mode & 0o777


def test_folder_that_cannot_be_made_is_a_reason(tmp_path: Path) -> None:
    """Where that is not possible callgrind is not told to write, for that would end the process."""
    sent: list[str] = []
    with pytest.raises(CannotCountError, match=r"cannot write into .*: No such file"):
        Dumps([], pid=42, start_folder=tmp_path / "gone" / "gone").take(
            lambda *orders: sent.extend(orders)
        )
    assert [] == sent
