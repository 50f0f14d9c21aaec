"""What the platform tells: parsed texts, units, and the real process that runs the tests."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pytest_imu.core.memory import platforms
from pytest_imu.core.memory.platforms import ProcStatus, RssReader, parse_proc_status, readers_for
from pytest_imu.core.units import MIB

InFork = Callable[[Callable[[], object]], Any]
STATUS = b"""Name:\tpython
Umask:\t0022
State:\tR (running)
Groups:\t0 4 27
VmPeak:\t 9000000 kB
VmSize:\t 8000000 kB
VmHWM:\t  3175424 kB
VmRSS:\t   812345 kB
RssAnon:\t   804321 kB
Threads:\t1
"""


def about_the_same(size_bytes: int) -> Any:
    """Return what equals every number of bytes that is this one, within 0.5 MiB."""
    return pytest.approx(size_bytes, abs=MIB // 2)


def statm_rss_bytes() -> int:
    """Return this process's RSS, read by hand."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf(
        "SC_PAGESIZE"
    )


class TestProcStatus:
    """The two fields of /proc/PID/status."""

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            (STATUS, ProcStatus(812345 * 1024, 3175424 * 1024)),
            (b"VmHWM:\t       0 kB\nVmRSS:\t       4 kB\n", ProcStatus(4096, 0)),
            (b"VmRSS: 17179869184 kB\nVmHWM: 17179869185 kB", ProcStatus(2**44, 2**44 + 1024)),
        ],
    )
    def test_both_fields_are_read_as_bytes(self, text: bytes, expected: ProcStatus) -> None:
        """VmRSS and VmHWM come out of one text, in bytes, whatever their order and width."""
        assert expected == parse_proc_status(text)

    @pytest.mark.parametrize(
        "text",
        [
            b"",
            b"Name:\tkthreadd\nThreads:\t1\n",  # a kernel thread has no memory of its own
            STATUS.replace(b"VmHWM", b"VmXXX"),
            STATUS.replace(b"VmRSS", b"VmXXX"),
            b"VmHWM:\t many kB\nVmRSS:\t 1 kB\n",
            b"VmHWM:\t 12 kB\nVmRSS:\t 12",
        ],
    )
    def test_text_without_them_is_an_error(self, text: bytes) -> None:
        """A text that lacks a field, or its number, or its unit, is a ValueError, never a 0."""
        with pytest.raises(ValueError):  # noqa: PT011 - whichever says so, callers treat it alike
            parse_proc_status(text)

    @pytest.mark.needs_proc
    def test_this_process_is_read(self) -> None:
        """The real text gives this process's RSS, and a mark that is not below it."""
        status = platforms.read_proc_status()
        assert about_the_same(statm_rss_bytes()) == status.rss_bytes
        assert status.rss_bytes <= status.high_water_bytes

    @pytest.mark.needs_proc
    @pytest.mark.needs_root
    def test_many_groups_do_not_hide_the_fields(self, in_fork: InFork) -> None:
        """A thousand long group ids, which stand before them in the text, leave both fields readable."""

        def child() -> bool:
            os.setgroups(range(2_000_000_000, 2_000_001_000))
            return platforms.read_proc_status().rss_bytes > 0

        assert in_fork(child)

    @pytest.mark.needs_proc
    def test_file_that_refuses_leaves_no_descriptor(self, tmp_path: Path) -> None:
        """What cannot be opened or read raises OSError, and nothing stays open."""
        with pytest.raises(FileNotFoundError):
            platforms.read_proc_file("/proc/self/no-such-file")
        with pytest.raises(IsADirectoryError):
            platforms.read_proc_file(str(tmp_path))


@pytest.fixture
def reader() -> Iterator[RssReader]:
    """Return a reader of the test's own, whose descriptor goes with it."""
    own = RssReader()
    yield own
    os.close(own._descriptor)


@pytest.mark.needs_proc
class TestRssReader:
    """The one descriptor that is kept."""

    def test_reads_this_process(self, reader: RssReader) -> None:
        """Every reading is the RSS at that moment, through the same descriptor."""
        assert about_the_same(statm_rss_bytes()) == reader()
        first = reader._descriptor
        before = reader()
        # Mapped by itself: of malloc it might get what an earlier test has freed, without any growth.
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE
        with mmap.mmap(-1, 20 * MIB, flags=flags):
            assert about_the_same(before + 20 * MIB) == reader()
        assert first == reader._descriptor

    def test_descriptor_that_was_closed_is_opened_afresh(self, reader: RssReader) -> None:
        """A test that closes what it did not open changes no reading."""
        reader()
        os.close(reader._descriptor)
        assert about_the_same(statm_rss_bytes()) == reader()

    @pytest.mark.parametrize("content", [b"", b"a text that is no statm", b"1 2 3 four 5 6 7 8"])
    def test_number_that_belongs_to_another_file(
        self, reader: RssReader, tmp_path: Path, content: bytes
    ) -> None:
        """A file that got the reader's number is neither believed, nor moved, written or closed."""
        path = tmp_path / "file"
        reader()
        number = reader._descriptor
        with path.open("w+b") as file:
            os.dup2(file.fileno(), number)
            os.write(number, content)
            assert about_the_same(statm_rss_bytes()) == reader()
            assert number != reader._descriptor
            assert len(content) == os.lseek(number, 0, os.SEEK_CUR)
            assert path == Path(f"/proc/self/fd/{number}").readlink()
            os.close(number)
        assert content == path.read_bytes()

    def test_number_that_belongs_to_a_pipe(self, reader: RssReader) -> None:
        """A pipe that got the reader's number keeps what stands in it."""
        reader()
        number = reader._descriptor
        receiving, sending = os.pipe()
        os.dup2(receiving, number)
        os.write(sending, b"for the test")
        assert about_the_same(statm_rss_bytes()) == reader()
        assert b"for the test" == os.read(number, 100)
        for descriptor in (receiving, sending, number):
            os.close(descriptor)

    def test_forked_child_reads_itself(self, reader: RssReader, in_fork: InFork) -> None:
        """After a fork the child reads its own RSS, though it has inherited the descriptor."""
        reader()

        def child() -> tuple[int, int, int]:
            statm_rss_bytes()  # a forked child maps file pages again as it runs on them
            before = reader()
            with mmap.mmap(-1, 50 * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as held:
                for start in range(0, 50 * MIB, mmap.PAGESIZE):
                    held[start] = 1
                return before, reader(), statm_rss_bytes()

        before, read, true = in_fork(child)
        assert about_the_same(true) == read
        assert about_the_same(before + 50 * MIB) == read
        assert about_the_same(statm_rss_bytes()) == reader()


@pytest.mark.needs_kernel_peaks
@pytest.mark.usefixtures("steady_memory")  # its 50 MiB shall not come from a hole in the heap
def test_reset_lowers_both_marks(in_fork: InFork) -> None:
    """The reset brings VmHWM and ru_maxrss down to the RSS, in the process that asks for it."""

    def child() -> list[int]:
        spike = b"x" * (50 * MIB)
        del spike
        before = platforms.read_proc_status()
        platforms.reset_high_water_mark()
        after = platforms.read_proc_status()
        return [
            before.high_water_bytes - before.rss_bytes,
            after.high_water_bytes - after.rss_bytes,
            platforms.max_rss_bytes() - after.rss_bytes,
        ]

    mark_before, mark_after, max_rss_after = in_fork(child)
    assert about_the_same(50 * MIB) == mark_before
    assert about_the_same(0) == mark_after
    assert about_the_same(0) == max_rss_after


@pytest.mark.needs_proc
def test_max_rss_is_in_bytes() -> None:
    """ru_maxrss has the unit of the RSS: it is at least that, and no thousand times that."""
    rss_bytes = statm_rss_bytes()
    assert rss_bytes - MIB // 2 <= platforms.max_rss_bytes() < 100 * rss_bytes


@pytest.mark.parametrize(
    ("processors", "pages"), [(None, 32), (1, 32), (2, 32), (16, 32), (17, 34), (64, 128), (256, 512)]
)
def test_batch_grows_with_the_processors(
    monkeypatch: pytest.MonkeyPatch, processors: int | None, pages: int
) -> None:
    """One CPU holds back at least 32 pages, and two for every CPU there is."""
    monkeypatch.setattr(os, "cpu_count", lambda: processors)
    assert pages * platforms.PAGE_BYTES == platforms.high_water_batch_bytes()


class MemoryInfo:
    """What psutil's memory_info() returns."""

    rss = 7
    peak_wset = 9


class TestReaders:
    """How each platform tells its numbers."""

    def test_windows_has_its_peak_working_set(self) -> None:
        """On Windows psutil tells the working set and its highest value."""
        readers = readers_for("win32", process_memory=MemoryInfo)
        assert readers.lifetime_peak_bytes is not None
        assert (7, 9) == (readers.rss_bytes(), readers.lifetime_peak_bytes())
        assert "psutil, working set" == readers.label

    @pytest.mark.parametrize("platform", ["darwin", "freebsd14"])
    def test_other_unixes_have_getrusage(self, platform: str) -> None:
        """Elsewhere psutil tells the RSS, and getrusage the highest of the process's life."""
        readers = readers_for(platform, process_memory=MemoryInfo)
        assert 7 == readers.rss_bytes()
        assert platforms.max_rss_bytes is readers.lifetime_peak_bytes
        assert "psutil, getrusage" == readers.label

    @pytest.mark.needs_proc
    def test_linux_asks_proc(self) -> None:
        """On Linux /proc tells both."""
        readers = readers_for("linux")
        assert readers.lifetime_peak_bytes is not None
        assert about_the_same(statm_rss_bytes()) == readers.rss_bytes()
        assert readers.rss_bytes() <= readers.lifetime_peak_bytes()
        assert "/proc/self/statm" == readers.label

    @pytest.mark.needs_proc
    def test_psutil_agrees_with_proc(self) -> None:
        """psutil, which is asked where nothing was given, tells the same RSS."""
        readers = readers_for("darwin")
        assert about_the_same(statm_rss_bytes()) == readers.rss_bytes()


@pytest.mark.needs_proc
def test_rss_on_any_platform() -> None:
    """The RSS now, through whatever this platform has."""
    assert about_the_same(statm_rss_bytes()) == platforms.rss_bytes()


class TestRssOrNone:
    """The RSS for those who do without where it costs much."""

    @pytest.mark.needs_proc
    def test_rss_where_it_can_be_read(self) -> None:
        """Where there is /proc, it is the RSS."""
        assert about_the_same(statm_rss_bytes()) == platforms.rss_bytes_or_none()

    @pytest.mark.parametrize("error", [OSError("no /proc"), ValueError("no numbers")])
    def test_none_where_it_cannot(self, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
        """Where the reading fails it is None, not 0."""

        def refuse() -> int:
            raise error

        monkeypatch.setattr(platforms, "rss_bytes", refuse)
        assert None is platforms.rss_bytes_or_none()
