"""Runs of several processes and machines: xdist's own gateways, and shards that become one run."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_imu.__main__ import main
from pytest_imu.core.memory.source import peak_source
from suites import SUITE

if TYPE_CHECKING:
    from tests.history.conftest import Documents


@pytest.fixture
def remote(tmp_path: Path) -> Iterator[str]:
    """Start another interpreter that takes work at a socket, and return how xdist is told of it."""
    folder = tmp_path / "remote"
    folder.mkdir()
    command = [sys.executable, "-u", "-m", "execnet.script.socketserver", "127.0.0.1:0"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        for line in server.stdout:
            if "Entering Accept loop" in line:
                break
        port = line.rpartition(", ")[2].rstrip(")\n")
        yield f"socket=127.0.0.1:{port}//chdir={folder}"
        server.kill()


def test_xdists_gateways_fail_what_grew(
    pytester: pytest.Pytester, documents: Documents, remote: str
) -> None:
    """A worker that was forked here and one behind a socket are both told the earlier numbers."""
    path = pytester.path / "pkg" / "test_it.py"
    path.parent.mkdir()
    path.write_text(SUITE, encoding="utf-8")
    kind = "kernel" if peak_source().label.startswith("kernel") else "sampled"
    tests = [
        documents.test(f"{folder}test_it.py::{name}", peak_mib)
        for folder in ("pkg/", "")  # there its folder is the root
        for name, peak_mib in (("test_large", 20), ("test_small", 5))
    ]
    for test in tests:
        test["phases"]["call"]["source"] = kind
    base = documents.write("base.json", *tests)
    result = pytester.runpytest_subprocess(
        *("-p", "imu", "-p", "xdist", "--dist=each", "--tx", "popen", "--tx", remote),
        *(f"--rootdir={pytester.path}", f"--rsyncdir={path.parent}", str(path.parent)),
        *(f"--imu-compare={base}", "--imu-fail-increase=10%+2", "--imu-json=imu.json"),
    )
    result.assert_outcomes(passed=2, failed=2)
    result.stdout.fnmatch_lines(["compared 4 tests: 2 grew, 2 same"])
    assert 0 == main(["compare", "imu.json", "imu.json"])


def test_real_shards_become_one_run(
    pytester: pytest.Pytester, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each shard writes its file; what they become compares with a run of the whole suite."""
    pytester.makepyfile(test_it=SUITE)
    for name, selection in (("shard-1", "large"), ("shard-2", "small"), ("whole", "test")):
        result = pytester.runpytest_subprocess("-p", "imu", "-k", selection, f"--imu-json={name}.json")
        assert 0 == result.ret
    assert 0 == main(["merge", "shard-*.json", "-o", "imu.json", "--expect=2"])
    assert 0 == main(["compare", "whole.json", "imu.json", "--fail-increase=10%+2"])
    assert 0 == main(["report", "imu.json"])
    assert "compared 2 tests: 2 same\n" in capsys.readouterr().out
