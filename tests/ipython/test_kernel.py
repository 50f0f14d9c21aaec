"""The extension in a real Jupyter kernel: what a front end gets to show, cell by cell."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from jupyter_client.blocking.client import BlockingKernelClient
    from jupyter_client.manager import KernelManager

pytestmark = pytest.mark.needs_ipykernel

EXAMPLE = Path(__file__).parents[2] / "examples" / "memory_in_a_notebook.ipynb"
TIMEOUT_S = 120
REPORT = re.compile(
    r"(?P<used>[+-]\S+) MiB( \(.*?\))? · peak (?P<peak>\+\S+) · total (?P<total>\d+\.\d)"
    r"( \([+-]\S+ since the last command\))? · (<1 ms|\d+ ms|\d+\.\d s)(?P<notes>.*)"
)
EXECUTE = """
import asyncio, json, sys, nbclient, nbformat
if sys.platform == "win32":
    asyncio.set_event_loop_policy(asyncio.WindowsSelectorEventLoopPolicy())
notebook = nbformat.read(sys.argv[1], as_version=4)
nbclient.NotebookClient(notebook, timeout=120).execute()
print(json.dumps([[cell.source, cell.outputs] for cell in notebook.cells if cell.cell_type == "code"]))
"""
ALL = "%config ImuMagics.min_mib = 0"
"""What gives the cells that move nothing a line too."""
Message = dict[str, Any]  # Any: messages are JSON


class Notebook:
    """A front end: it sends cells to its kernel and keeps what comes back."""

    def __init__(self, manager: KernelManager, client: BlockingKernelClient) -> None:
        self.manager = manager
        self.client = client

    def send(self, code: str, **options: Any) -> str:
        """Send a cell and return its request's id.

        A cell that raises drops no other: what comes just behind it would have an empty reply.
        """
        request: str = self.client.execute(code, stop_on_error=False, **options)
        return request

    def run(self, code: str, **options: Any) -> list[Message]:
        """Run a cell and return what it made the kernel publish."""
        return self.published(self.send(code, **options))

    def published(self, request: str) -> list[Message]:
        """Return what the kernel published because of a request, until it is idle again."""
        return [*self.until(request, "status", "idle")]

    def until(self, request: str, kind: str, text: str) -> Iterator[Message]:
        """Go through what the kernel publishes because of a request, up to a message with a text."""
        while True:
            message = self.client.get_iopub_msg(timeout=TIMEOUT_S)
            assert request == message["parent_header"].get("msg_id"), message
            yield {"kind": message["msg_type"], **message["content"]}
            if message["msg_type"] == kind and text in json.dumps(message["content"]):
                return

    def value(self, expression: str) -> Any:
        """Return what an expression is in the kernel, asked without a cell that could be reported."""
        request = self.send(
            "", silent=True, user_expressions={"value": f"__import__('json').dumps({expression})"}
        )
        self.published(request)
        reply = self.client.get_shell_msg(timeout=TIMEOUT_S)
        while request != reply["parent_header"]["msg_id"]:
            reply = self.client.get_shell_msg(timeout=TIMEOUT_S)
        found = reply["content"]["user_expressions"]["value"]
        assert "ok" == found["status"], found
        return json.loads(ast.literal_eval(found["data"]["text/plain"]))


def displays(messages: list[Message]) -> list[dict[str, str]]:
    """Return the data of the displays, first ones and updates."""
    return [one["data"] for one in messages if one["kind"] in {"display_data", "update_display_data"}]


def reports(messages: list[Message]) -> list[re.Match[str]]:
    """Return the reports among the displays."""
    plain = [data["text/plain"] for data in displays(messages)]
    return [found for text in plain if (found := REPORT.fullmatch(text))]


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Notebook]:
    """Start one kernel for all tests of this module."""
    from jupyter_client.manager import KernelManager  # slow to import, and where it is used alone

    folder = tmp_path_factory.mktemp("kernel")
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel(
        cwd=str(folder), env=dict(os.environ, IPYTHONDIR=str(folder), OPENBLAS_NUM_THREADS="1")
    )
    client = manager.client()
    try:
        # The heartbeat's thread opens another socket whenever a busy machine's kernel is late, and the
        # test that runs meanwhile would be blamed for its descriptors.
        client.start_channels(hb=False)
        client.wait_for_ready(timeout=TIMEOUT_S)
        notebook = Notebook(manager, client)
        # What wait_for_ready() has asked may still be answered: that comes before this cell's end.
        last = notebook.send("import os, threading, time, psutil"), "status", "idle"
        seen: tuple[object, ...] = ()
        while seen != last:
            message = client.get_iopub_msg(timeout=TIMEOUT_S)
            state = message["content"].get("execution_state")
            seen = message["parent_header"].get("msg_id"), message["msg_type"], state
        yield notebook
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
        manager.cleanup_resources()


@pytest.fixture
def notebook(kernel: Notebook) -> Iterator[Notebook]:
    """Return a notebook that has loaded the extension, and unload it afterwards."""
    kernel.run("%load_ext ipython_hooks")
    kernel.run("%config ImuMagics.min_mib = None")  # an earlier test's
    yield kernel
    kernel.run("%unload_ext ipython_hooks")


def test_loading_says_one_line_and_is_not_reported(kernel: Notebook) -> None:
    """Loading shows how to stop it, and nothing else."""
    shown = displays(kernel.run("%load_ext ipython_hooks"))
    kernel.run("%unload_ext ipython_hooks")
    expected = "reporting after each command; %imu off stops it, %imu? explains the rest"
    assert [expected] == [data["text/plain"] for data in shown]


@pytest.mark.needs_kernel_peaks
def test_one_quiet_display_after_a_cell(notebook: Notebook) -> None:
    """After a cell there is one display: what it used and its peak, without the cell, which stands
    above; plain for terminals, and small, with figures of one width, for browsers.
    """
    messages = notebook.run("kept = b'<' * (64 * 2**20); len(kept + b'y')")
    [data] = displays(messages)
    assert {"text/plain", "text/html"} == data.keys()
    [report] = reports(messages)
    assert [64, 128] == pytest.approx([float(report["used"]), float(report["peak"])], abs=0.5)
    assert data["text/html"].startswith('<div style="font-family: var(--jp-code-font-family, monospace)')
    assert f">{data['text/plain']}</div>" in data["text/html"]
    assert [] == [one for one in messages if one["kind"] == "stream"]
    # The cell's numbers stand in the notebook's file, where papermill and nbconvert find them.
    [shown] = [one for one in messages if one["kind"] == "display_data"]
    assert shown["metadata"]["imu"] == notebook.value("imu_history[-1]")
    assert 64 == pytest.approx(shown["metadata"]["imu"]["used_mib"], abs=0.5)


def test_cells_that_move_nothing_have_no_line(notebook: Notebook) -> None:
    """A cell of less than a MiB leaves no output; its numbers are in the history all the same."""
    assert [] == displays(notebook.run("small = 1"))
    assert "small = 1" == notebook.value("imu_history[-1]['command']")
    notebook.run(ALL)
    assert 1 == len(reports(notebook.run("small = 1")))


def test_cell_ids_are_data(notebook: Notebook) -> None:
    """The front end's id of a cell stands in the history and in what is saved."""
    message = notebook.client.session.msg(
        "execute_request",
        {"code": "a = 1", "silent": False, "store_history": True},
        metadata={"cellId": "a-cell"},
    )
    notebook.client.shell_channel.send(message)
    notebook.published(message["header"]["msg_id"])
    assert "a-cell" == notebook.value("imu_history[-1]['cell_id']")
    notebook.run("%imu save cells.json")
    saved = notebook.value("__import__('json').load(open('cells.json'))['tests'][-1]")
    assert ["a-cell", "passed"] == [saved["cell_id"], saved["outcome"]]


def test_styles(notebook: Notebook) -> None:
    """A cell has the ancestor's line where that is asked for, and no output where none is."""
    notebook.run(ALL)
    notebook.run("%imu style ancestor")
    [data] = displays(notebook.run("pass"))
    assert data["text/plain"].startswith("'pass' used 0.0 MiB RAM in ")
    notebook.run("%imu style off")
    assert [] == displays(notebook.run("large = b'x' * 2**24"))
    notebook.run("%imu style short")
    assert 1 == len(reports(notebook.run("pass")))


def test_no_live_display(notebook: Notebook) -> None:
    """A display among the cell's outputs would be in the way of them: there is none, and it is said."""
    [data] = displays(notebook.run("%imu live on"))
    assert data["text/plain"].startswith("no live display in notebooks, ")
    assert "jupyter-resource-usage" in data["text/plain"]
    notebook.run("%config ImuMagics.live_after_s = 0.1")
    assert [] == displays(notebook.run("time.sleep(0.5)"))


def test_measured_cells_await_in_the_kernels_own_loop(notebook: Notebook) -> None:
    """`%%imu` awaits what a plain cell could; its value and its error are the cell's own."""
    notebook.run("import asyncio; task = asyncio.ensure_future(asyncio.sleep(0, 'slept'))")
    messages = notebook.run("%%imu -r 2\nawait asyncio.sleep(0)\nawait task")
    assert ["'slept'"] == [data["text/plain"] for data in displays(messages)]
    [result] = [one["data"]["text/plain"] for one in messages if one["kind"] == "execute_result"]
    assert result.startswith("runs 2\nused ")
    [error] = [one for one in notebook.run("%%imu\nawait task\n1/0") if one["kind"] == "error"]
    text = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(error["traceback"]))
    assert "ZeroDivisionError" == error["ename"]
    assert "----> 3 1/0" in text
    assert 1 == text.count("Cell In[")
    assert "ipython_hooks" not in text


@pytest.mark.needs_proc
def test_limit_saves_the_kernel(notebook: Notebook) -> None:
    """Past the limit the allocating line raises MemoryError; the kernel and its variables survive."""
    read_limit = "__import__('resource').getrlimit(__import__('resource').RLIMIT_DATA)"
    before = notebook.value(read_limit)
    notebook.run(ALL)
    notebook.run("%imu limit 1GiB")
    messages = notebook.run("precious = list(range(1000))\nhuge = b'x' * (64 * 2**30)\nprecious = None")
    [error] = [one for one in messages if one["kind"] == "error"]
    traceback = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(error["traceback"]))
    assert "MemoryError" == error["ename"]
    assert re.search(r"-> 2 huge = b'x' \* \(64 \* 2\*\*30\)", traceback)
    assert " · the command raised" == reports(messages)[0]["notes"]
    assert [1000, False] == notebook.value("[len(precious), 'huge' in globals()]")
    assert "499500" in json.dumps(notebook.run("sum(precious)"))
    notebook.run("%imu limit off")
    assert before == notebook.value(read_limit)


def test_comm_messages_are_not_reported(notebook: Notebook) -> None:
    """A widget's messages run code outside any cell: nothing is reported, and the next cell is."""
    notebook.run(
        "def heard(comm, message):\n"
        "    comm.on_msg(lambda message: print('heard', message['content']['data']))\n"
        "get_ipython().kernel.comm_manager.register_target('knob', heard)"
    )
    before = notebook.value("len(imu_history)")
    opened = {"comm_id": "one", "target_name": "knob", "data": {}}
    channel = notebook.client.shell_channel
    for kind, content in (("comm_open", opened), ("comm_msg", {"comm_id": "one", "data": 5})):
        message = notebook.client.session.msg(kind, content)
        channel.send(message)
        messages = notebook.published(message["header"]["msg_id"])
        assert [] == displays(messages)
    assert ["heard 5\n"] == [one["text"] for one in messages if one["kind"] == "stream"]
    assert before == notebook.value("len(imu_history)")
    notebook.run(ALL)
    assert 1 == len(reports(notebook.run("pass")))


def test_silent_requests_are_not_reported(notebook: Notebook) -> None:
    """What a front end runs silently is not reported, and does not disturb the next report."""
    assert [] == displays(notebook.run("quiet = 1", silent=True))
    notebook.run(ALL)
    assert 1 == len(reports(notebook.run("quiet")))


def test_cells_outside_the_history_have_no_number(notebook: Notebook) -> None:
    """A cell that is not stored is reported, without the number that another cell will have."""
    notebook.run("pass", store_history=False)
    assert None is notebook.value("imu_history[-1]['number']")


def test_interrupted_cell_is_reported(notebook: Notebook) -> None:
    """Interrupting a cell ends it with its report, and the next one is right."""
    notebook.run(ALL)
    # Not one long sleep: Python loses a signal that comes just before it.
    request = notebook.send("print('begun', flush=True)\nwhile True: time.sleep(0.01)")
    begun = [*notebook.until(request, "stream", "begun")]
    notebook.manager.interrupt_kernel()
    messages = begun + notebook.published(request)
    assert ["KeyboardInterrupt"] == [one["ename"] for one in messages if one["kind"] == "error"]
    assert [" · the command raised"] == [report["notes"] for report in reports(messages)]
    assert [""] == [report["notes"] for report in reports(notebook.run("pass"))]


@pytest.mark.needs_kernel_peaks
def test_lines_of_a_cell(notebook: Notebook) -> None:
    """A cell's statements are shown as a table with bars; it awaits, shows its value, and may fail."""
    messages = notebook.run(
        "%%imu lines\nimport asyncio\nheld = await asyncio.sleep(0.01, bytearray(64 * 2**20))\nlen(held)"
    )
    [table] = [data for data in displays(messages) if "linear-gradient" in data.get("text/html", "")]
    row = re.search(r"^ *(\S+) +(\S+) +\d\.\d\ds  3  held = await ", table["text/plain"], re.MULTILINE)
    assert row is not None
    assert [64, 64] == pytest.approx([float(number) for number in row.groups()], abs=0.5)
    [value] = [one["data"]["text/plain"] for one in messages if one["kind"] == "execute_result"]
    assert str(64 * 2**20) == value
    messages = notebook.run("%%imu lines\ndef divide():\n    return 1 / 0\ndivide()")
    [error] = [one for one in messages if one["kind"] == "error"]
    traceback = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(error["traceback"]))
    assert "ZeroDivisionError" == error["ename"]
    assert ["4", "3"] == re.findall(r"^-+> (\d)", traceback, re.MULTILINE)
    messages = notebook.run("%imu lines -f divide divide()")
    [error] = [one for one in messages if one["kind"] == "error"]
    traceback = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(error["traceback"]))
    assert ["1", "3"] == re.findall(r"^-+> (\d)", traceback, re.MULTILINE)
    assert ".py" not in traceback


@pytest.mark.needs_polars
@pytest.mark.needs_proc
def test_limit_saves_a_kernel_with_polars(notebook: Notebook) -> None:
    """Polars ends the process where an allocation is refused; the watch comes before, and the kernel,
    its variables and polars go on. It comes after tests of numbers: polars gives memory back late.
    """
    notebook.run("import polars as pl; from pytest_imu.core.memory.platforms import rss_bytes")
    notebook.run("import resource; before = resource.getrlimit(resource.RLIMIT_DATA)")
    notebook.run("%imu limit 700MiB")
    messages = notebook.run(
        "frames = []\n"
        "while True:\n"
        "    frame = pl.select(x=pl.int_range(131_072))\n"
        "    if rss_bytes() < 680 * 2**20: frames.append(frame)\n"
        "    time.sleep(0.001)"
    )
    [error] = [one for one in messages if one["kind"] == "error"]
    assert "MemoryError" == error["ename"]
    assert re.search(r"holds 6[678]\d\.\d MiB, and its limit is 700\.0 MiB", error["evalue"])
    assert 100 < notebook.value("len(frames)")
    assert notebook.value("resource.getrlimit(resource.RLIMIT_DATA) == before")
    notebook.run("total = frames[0].sum().item(); del frame; frames.clear()")
    assert 131_072 * 131_071 // 2 == notebook.value("total")
    notebook.run("%imu limit off")


@pytest.mark.needs_perf
def test_unloading_leaves_nothing_running(notebook: Notebook) -> None:
    """After unloading there is no report, no thread of ours, no perf and no name of ours."""
    notebook.run("%config ImuMagics.counters = 'perf'")
    notebook.run("%imu perf page-faults")
    counted = displays(notebook.run("time.sleep(0.3)"))[-1]["text/plain"]
    assert "perf value for page-faults averages to " in counted
    running = (
        "[[t.name for t in threading.enumerate() if t.name.startswith('imu')],"
        " [child.name() for child in psutil.Process().children()],"
        " [one.info['name'] for one in psutil.process_iter(['name', 'cmdline'])"
        "  if one.info['name'] == 'perf' and str(os.getpid()) in (one.info['cmdline'] or ())],"
        " [name for name in globals() if name.startswith('imu')]]"
    )
    assert ["perf"] == notebook.value(running)[2]
    notebook.run("%unload_ext ipython_hooks")
    assert [[], [], [], []] == notebook.value(running)
    assert [] == displays(notebook.run("pass"))


Cells = dict[str, tuple[str, re.Match[str] | None]]


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Cells:
    """Execute the example once, and return each cell's output and report under its source."""
    command = [sys.executable, "-c", EXECUTE, str(EXAMPLE)]
    environment = dict(
        os.environ, IPYTHONDIR=str(tmp_path_factory.mktemp("example")), OPENBLAS_NUM_THREADS="1"
    )
    done = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, check=True, timeout=2 * TIMEOUT_S
    )
    cells: Cells = {}
    for source, outputs in json.loads(done.stdout):
        texts = [one["data"]["text/plain"] for one in outputs if one["output_type"] == "display_data"]
        found = [match for text in texts if (match := REPORT.match(text))]
        cells[source] = "\n".join(texts), found[0] if found else None
    return cells


@pytest.mark.needs_kernel_peaks
@pytest.mark.parametrize(
    ("source", "used", "peak"),
    [
        ("a = np.ones(n)", 64, 64),
        ("b = a * 2", 64, 64),
        ("c = np.sqrt(b)", 64, 64),
        ("a *= 2", 0, 0),
        ("np.sqrt(a, out=a);", 0, 0),
        ("d = np.add(a * b, c)", 64, 128),
        ("del d", -64, 0),
        ("d = a * b\nd += c", 64, 64),
    ],
)
def test_example_teaches_what_it_says(example: Cells, source: str, used: float, peak: float) -> None:
    """The example's cells report what its text says, to half a MiB."""
    _, report = example[source]
    assert report is not None
    assert [used, peak] == pytest.approx([float(report["used"]), float(report["peak"])], abs=0.5)


@pytest.mark.needs_perf
def test_example_counts_a_row_and_a_column(example: Cells) -> None:
    """Of memory that nobody has touched, a row of 32 KiB needs 8 pages and a column 2048."""
    pages = []
    for source in ("row = table[0, :].sum()", "column = table[:, 1024].sum()"):
        counted = re.search(r"([\d,]+) in all", example[source][0])
        assert counted is not None
        pages.append(int(counted[1].replace(",", "")))
    assert [8, 2048] == pytest.approx(pages, abs=20)
