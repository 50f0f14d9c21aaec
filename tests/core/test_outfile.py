"""Writing a file that the user named: in one step, in its own place, and never in place of a device."""

from __future__ import annotations

import errno
import os
import stat
import threading
from pathlib import Path

import pytest

from pytest_imu.core import outfile
from pytest_imu.core.outfile import check_writable, own_descriptor, replace_all, writing

needs_pipes = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
needs_posix = pytest.mark.skipif(os.name != "posix", reason="needs owners and permissions")


def write(path: Path, text: str) -> None:
    """Check and write as a run does."""
    check_writable(path)
    with writing(path) as file:
        file.write(text)


@needs_posix
def test_new_file_has_the_permissions_of_any_new_file(tmp_path: Path) -> None:
    """The umask decides, as it does for `open`."""
    before = os.umask(0o027)
    try:
        write(tmp_path / "new.json", "new")
    finally:
        os.umask(before)

    assert 0o640 == stat.S_IMODE((tmp_path / "new.json").stat().st_mode)


@pytest.mark.needs_root
@pytest.mark.parametrize("mode", [0o600, 0o664, 0o444])
def test_old_file_keeps_owner_and_permissions(tmp_path: Path, mode: int) -> None:
    """Another user's file is still theirs after root has written it."""
    path = tmp_path / "old.json"
    path.write_text("old", encoding="ascii")
    path.chmod(mode)
    os.chown(path, 1234, 5678)

    write(path, "new")

    found = path.stat()
    assert (1234, 5678, mode) == (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode))
    assert "new" == path.read_text(encoding="ascii")


@pytest.mark.parametrize("exists", [True, False])
def test_chain_of_links_is_followed(tmp_path: Path, exists: bool) -> None:  # noqa: FBT001
    """The file at the end of all links is written, in its own folder, also if it was not there."""
    target = tmp_path / "far" / "away" / "target.json"
    if exists:
        target.parent.mkdir(parents=True)
        target.write_text("old", encoding="ascii")
    (tmp_path / "second").symlink_to("far/away/target.json")
    (tmp_path / "first").symlink_to("second")

    write(tmp_path / "first", "new")

    assert "new" == target.read_text(encoding="ascii")
    assert (tmp_path / "first").is_symlink()
    assert (tmp_path / "second").is_symlink()
    assert [target] == list(target.parent.iterdir())


def test_circle_of_links_is_an_error(tmp_path: Path) -> None:
    """Links that lead nowhere are the system's own error."""
    (tmp_path / "one").symlink_to("two")
    (tmp_path / "two").symlink_to("one")

    with pytest.raises(OSError, match="symbolic links") as raised:
        check_writable(tmp_path / "one")

    assert errno.ELOOP == raised.value.errno


@pytest.mark.parametrize("error", [OSError("full"), KeyboardInterrupt(), SystemExit()])
def test_nothing_is_left_of_a_write_that_failed(tmp_path: Path, error: BaseException) -> None:
    """Whatever ends the writing, the old file stays, and no part of the new one."""
    path = tmp_path / "run.json"
    path.write_text("old", encoding="ascii")

    def fail() -> None:
        with writing(path) as file:
            file.write("half")
            raise error

    with pytest.raises(type(error)):
        fail()

    assert "old" == path.read_text(encoding="ascii")
    assert [path] == list(tmp_path.iterdir())


def test_name_beside_is_not_foreseen_and_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file beside has another name each time, and is never one that is there already."""
    opened = []

    def noting(path: Path, flags: int, mode: int) -> int:
        opened.append((path.name, flags))
        return os.open(path, flags, mode)

    monkeypatch.setattr(outfile, "_open", noting)
    for text in ("one", "two"):
        with writing(tmp_path / "run.json") as file:
            file.write(text)

    names = {name for name, _ in opened}
    assert 2 == len(names)
    assert "run.json" not in names
    wanted = os.O_EXCL | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
    assert [wanted, wanted] == [flags & wanted for _, flags in opened]


@needs_pipes
def test_pipe_takes_more_than_it_holds(tmp_path: Path) -> None:
    """A document larger than the pipe gets through as its reader reads."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(path.read_bytes()))
    reader.start()

    write(path, "x" * 1_000_000)
    reader.join()

    assert [b"x" * 1_000_000] == got
    assert path.is_fifo()


@needs_pipes
def test_pipe_without_a_reader_is_an_error_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader that never comes, and one that takes nothing, are waited for so long and no longer."""
    monkeypatch.setattr(outfile, "PATIENCE_S", 0.05)
    path = tmp_path / "pipe"
    os.mkfifo(path)

    with pytest.raises(OSError, match="no process reads this pipe"):
        write(path, "x")
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with pytest.raises(TimeoutError, match="takes nothing"):
            write(path, "x" * 1_000_000)
    finally:
        os.close(reader)

    assert path.is_fifo()


@pytest.mark.needs_proc
def test_path_of_a_descriptor(tmp_path: Path) -> None:
    """A path that stands for an open descriptor writes behind what was written through that one."""
    path = tmp_path / "open.txt"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
    try:
        os.write(descriptor, b"before ")
        (tmp_path / "link").symlink_to(f"/proc/self/fd/{descriptor}")

        assert descriptor == own_descriptor(tmp_path / "link")
        assert own_descriptor(path) is None
        write(tmp_path / "link", "json ")
        os.write(descriptor, b"after")
    finally:
        os.close(descriptor)

    assert "before json after" == path.read_text(encoding="ascii")
    assert own_descriptor(tmp_path / str(descriptor)) is None


@pytest.mark.needs_proc
def test_number_of_another_file_is_not_written_to(tmp_path: Path) -> None:
    """Where a descriptor was closed and its number given to another file, that one stays as it is."""
    descriptor = os.open(tmp_path / "ours", os.O_WRONLY | os.O_CREAT)
    try:
        path = Path(f"/proc/self/fd/{descriptor}")
        check_writable(path)
        os.close(descriptor)
        with pytest.raises(OSError, match=os.strerror(errno.EBADF)), writing(path) as file:
            file.write("json")
    finally:
        assert descriptor == os.open(tmp_path / "theirs", os.O_WRONLY | os.O_CREAT)
    try:
        with pytest.raises(OSError, match="was closed, and is another file now"), writing(path) as file:
            file.write("json")
    finally:
        os.close(descriptor)

    assert [0, 0] == [(tmp_path / name).stat().st_size for name in ("ours", "theirs")]


@pytest.mark.parametrize("fails", [None, "second", "third"])
def test_several_files_are_replaced_all_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str | None
) -> None:
    """What one of them hinders is undone in the others; permissions stay, and a link is followed."""
    paths = [tmp_path / name for name in ("first", "second", "third")]
    for path in paths:
        path.write_bytes(b"old")
        path.chmod(0o640)
    link = tmp_path / "link"
    link.symlink_to(paths[0])
    contents = {link: b"new\xff", paths[1]: b"new\xff", paths[2]: b"new\xff"}
    real_replace = os.replace

    def replace(source: Path, target: Path) -> None:
        if target.name == fails:
            raise PermissionError(errno.EACCES, "refused", str(target))
        real_replace(source, target)

    monkeypatch.setattr(outfile, "_replace", replace)
    if fails is None:
        replace_all(contents)
    else:
        with pytest.raises(PermissionError):
            replace_all(contents)
    expected = b"new\xff" if fails is None else b"old"
    assert [expected] * 3 == [path.read_bytes() for path in paths]
    assert [0o640] * 3 == [stat.S_IMODE(path.stat().st_mode) for path in paths]
    assert link.is_symlink()
    assert 4 == len(list(tmp_path.iterdir()))
