"""`%%imu lines` and `%imu lines -f`: each line's numbers, and cells that run as any other does."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("IPython", reason="needs_ipython: pip install 'pytest-imu[ipython]'")

Shell = Callable[..., Any]
BOUND_MIB = 0.5
DEFINITIONS = """
def block(count):
    return bytearray(count * 40 * 2**20)

def build():
    kept = block(1)
    size = len(block(2) + block(1))
    return kept
"""
KEYS = ["line", "used_mib", "peak_mib", "text"]
ROWS = f'seen["rows"] = [[row[key] for key in {KEYS}] for row in shell.user_ns["imu_last"].lines]'


def assert_rows(rows: list[list[Any]], expected: list[tuple[int, float, float, str]]) -> None:
    """Compare rows to lines, their used and peak in blocks of 40 MiB, and their texts."""
    assert [(line, text) for line, _, _, text in expected] == [(row[0], row[3]) for row in rows]
    for row, (_, used, peak, _) in zip(rows, expected, strict=True):
        assert abs(row[1] - 40 * used) <= BOUND_MIB, row
        assert abs(row[2] - 40 * peak) <= BOUND_MIB, row


@pytest.mark.needs_kernel_peaks
@pytest.mark.needs_malloc_trim
def test_statements_of_a_cell(shell: Shell) -> None:
    """Each statement has its own peak, the hidden temporary's too; the last value is shown, and kept."""
    cell = """%%imu lines
a = block(1)

size = len(block(2) + block(1)); b = block(1)
del a
for number in range(3):
    c = block(1)
size
"""
    seen = shell(f"""
        run({DEFINITIONS!r})
        seen["out"] = run({cell!r})
        seen["value"] = shell.user_ns["_"]
        {ROWS}
    """)
    assert_rows(
        seen["rows"],
        [
            (2, 1, 1, "a = block(1)"),
            (4, 0, 6, "size = len(block(2) + block(1))"),
            (4, 1, 1, "b = block(1)"),
            (5, -1, 0, "del a"),
            (6, 1, 2, "for number in range(3):"),
            (8, 0, 0, "size"),
        ],
    )
    assert 120 * 2**20 == seen["value"]
    assert f"Out[3]: {120 * 2**20}" == seen["out"][0]
    table = [line for line in seen["out"][1:] if " MiB RAM " not in line]
    assert re.fullmatch(r" +used +peak +time", table[0])
    whole = re.fullmatch(r" +(\S+) +(\S+) +\d+\.\d\ds +all of it", table[-2])
    assert whole is not None
    assert [80, 280] == pytest.approx([float(number) for number in whole.groups()], abs=BOUND_MIB)
    assert "(used and peak in MiB)" == table[-1]


def test_cell_runs_as_any_other(shell: Shell) -> None:
    """Awaits, magics, quiet ends, `%reset` and cells inside it do what they always do."""
    seen = shell(r"""
        def texts(source):
            lines = run(source)
            rows = [row["text"] for row in shell.user_ns["imu_last"].lines]
            return [line for line in lines if line.startswith("Out")], rows
        seen["await"] = texts("%%imu lines\nimport asyncio\nawait asyncio.sleep(0, result=3)")
        seen["magic"] = texts("%%imu lines\nx = %env HOME\n%cd -q .\n!true")
        seen["quiet"] = texts("%%imu lines\n1\n2;")
        seen["reset"] = texts("%%imu lines\na = 1\n%reset -f\nget_ipython().run_cell('1')\n5")
        run("%config InteractiveShell.ast_node_interactivity = 'last_expr_or_assign'")
        seen["assign"] = texts("%%imu lines\na = 1\nb = 7")
        run("%config InteractiveShell.ast_node_interactivity = 'all'")
        seen["all"] = texts("%%imu lines\n1\n2")
        run("%config InteractiveShell.ast_node_interactivity = 'last_expr'")
        seen["by hand"] = texts("get_ipython().run_cell_magic('imu', 'lines', 'q = 1\\nq')")
        seen["inside"] = texts("%%imu lines\nget_ipython().run_cell('%%imu lines\\nn = 1')\n8;")
        import builtins
        seen["left"] = [name for name in vars(builtins) if "imu" in name]
    """)
    assert [["Out[2]: 3"], ["import asyncio", "await asyncio.sleep(0, result=3)"]] == seen["await"]
    assert [[], ["x = %env HOME", "%cd -q .", "!true"]] == seen["magic"]
    assert [[], ["1", "2"]] == seen["quiet"]
    assert ["Out[5]: 1", "Out[5]: 5"] == seen["reset"][0]
    assert [["Out[7]: 7"], ["a = 1", "b = 7"]] == seen["assign"]
    assert [["Out[9]: 1", "Out[9]: 2"], ["1", "2"]] == seen["all"]
    assert [["Out[11]: 1"], ["q = 1", "q"]] == seen["by hand"]
    assert [[], ["get_ipython().run_cell('%%imu lines\\nn = 1')", "8"]] == seen["inside"]
    assert [] == seen["left"]


def test_typing_a_cell(shell: Shell) -> None:
    """While it is typed, a cell is complete with an empty line, as with any cell's magic."""
    seen = shell(r"""
        check = shell.input_transformer_manager.check_complete
        typed = ["%%imu lines\n", "%%imu lines\na = 1\n", "%%imu lines\na = 1\n\n"]
        seen["states"] = [check(text)[0] for text in typed]
    """)
    assert ["incomplete", "incomplete", "complete"] == seen["states"]


def test_faults_are_nobodys(shell: Shell) -> None:
    """Where memory cannot be read the cell runs, and says n/a; a fault of the table is said."""
    seen = shell(r"""
        run("def build(): return 3")
        from pytest_imu.core.memory import source as memory
        from pytest_imu.why import lines
        def broken():
            raise OSError("no /proc today")
        memory.peak_source = lines.peak_source = broken
        seen["cell"] = run("%%imu lines\na = 1\n2")
        seen["function"] = error("%imu lines -f build build()")
        from ipython_hooks.lines.statements import Statements
        def unable(*_, **__):
            raise KeyError("table")
        Statements.table = unable
        seen["table"] = run("%%imu lines\na = 1\n2")
    """)
    rows = [line.split() for line in seen["cell"]]
    assert ["n/a", "n/a", "0.00s", "2", "a", "=", "1"] in rows
    assert ["Out[3]:", "2"] == rows[0]
    assert ["UsageError: %imu lines: memory cannot be read: no /proc today"] == seen["function"][:1]
    assert "Out[5]: 2" == seen["table"][0]
    assert "the lines are not known: KeyError: 'table'" in seen["table"]


def test_unloading_inside(shell: Shell) -> None:
    """A cell that unloads the extension goes on to its end."""
    seen = shell(r"""
        seen["out"] = run("%%imu lines\na = 1\n%unload_ext ipython_hooks\nb = 2\nb + 1")
    """)
    assert ["Out[2]: 3"] == seen["out"]


def test_errors_of_cells(shell: Shell) -> None:
    """An error shows the cell's own lines and no frame of ours; what makes no sense is said."""
    seen = shell(r"""
        seen["raises"] = error("%%imu lines\na = 1\n1/0\nb = 2")
        seen["rows"] = [[row["line"], row["raised"]] for row in shell.user_ns["imu_last"].lines]
        seen["succeeded"] = shell.last_execution_succeeded
        seen["syntax"] = error("%%imu lines\nx = = 3")
        seen["empty"] = error("%%imu lines")
        seen["option"] = error("%%imu lines -x\na = 1")
        seen["name"] = error("%%imu lines -f nosuch\na = 1")
        seen["after"] = report("pass")
    """)
    text = "\n".join(seen["raises"])
    assert "Cell In[2], line 3\n" in text
    assert "----> 3 1/0\n" in text
    assert ".py" not in text
    assert 1 == text.count("Cell In")
    assert [[2, False], [3, True]] == seen["rows"]
    assert "line 3 raised: its numbers have the traceback in them" == seen["raises"][-1]
    assert not seen["succeeded"]
    assert "  Cell In[3], line 2" == seen["syntax"][0]
    assert ["UsageError: %%imu lines: the cell has no statements to measure"] == seen["empty"]
    expected = "expected [-f FUNCTION [-f FUNCTION]]"
    assert [f"UsageError: invalid value '-x' for %%imu lines: {expected}"] == seen["option"]
    expected = "expected a name that is defined"
    assert [f"UsageError: invalid value 'nosuch' for %imu lines -f: {expected}"] == seen["name"]
    assert seen["after"].startswith("'pass' used 0.")


@pytest.mark.needs_kernel_peaks
@pytest.mark.needs_malloc_trim
@pytest.mark.parametrize("form", ["line", "cell"])
def test_lines_of_functions(shell: Shell, form: str) -> None:
    """The lines of a function that was typed at the prompt have their peaks, in either form."""
    source = {"line": "%imu lines -f build a = build()", "cell": "%%imu lines -f build\na = build()"}[
        form
    ]
    seen = shell(f"""
        run({DEFINITIONS!r})
        seen["out"] = run({source!r})
        seen["is shown"] = shell.user_ns["imu_last"] is shell.user_ns["_"]
        {ROWS}
    """)
    assert_rows(
        seen["rows"],
        [
            (5, 1, 1, "kept = block(1)"),
            (6, 0, 6, "size = len(block(2) + block(1))"),
            (7, 0, 0, "return kept"),
        ],
    )
    table = "\n".join(line for line in seen["out"] if " MiB RAM " not in line)
    assert re.search(r"hits +used +largest +peak +total\n", table)
    row = r" +1 +\S+ +\S+ +2[34]\d\.\d +\d+\.\d  In\[2\]:6  size = len\(block\(2\) \+ block\(1\)\)"
    assert re.search(row, table)
    assert (form == "line") == seen["is shown"]


def test_which_functions(shell: Shell) -> None:
    """A class stands for its functions; methods, properties and wrapped functions are found."""
    definitions = textwrap.dedent("""
        import functools
        class Shop:
            def __init__(self):
                self.a = 1
            @property
            def total(self):
                return self.a
        @functools.cache
        def cached():
            return 2
        async def later():
            return 3
    """)
    seen = shell(f"""
        run({definitions!r})
        def texts(source):
            lines = [line for line in run(source) if " MiB RAM " not in line]
            return [row["text"].strip() for row in shell.user_ns["imu_last"].lines], lines
        seen["class"] = texts("%imu lines -f Shop Shop().total")[0]
        seen["both"] = texts("%imu lines -f Shop.__init__ -f cached Shop(); cached()")[0]
        seen["await"] = texts("%%imu lines -f later\\nawait later()")[0]
        seen["uncalled"] = texts("%imu lines -f later pass")
        seen["kept"] = (run("m = %imu lines -f later pass"), len(shell.user_ns["m"].lines))[1]
        seen["C"] = error("%imu lines -f len len([])")
        seen["no name"] = error("%imu lines len([])")
        seen["cannot await"] = error("%imu lines -f later await later()")
        seen["syntax"] = error("%imu lines -f later x = = 3")
        seen["raises"] = error("%imu lines -f later 1/0")
    """)
    assert ["self.a = 1", "return self.a"] == seen["class"]
    assert ["self.a = 1", "return 2"] == seen["both"]
    assert ["return 3"] == seen["await"]
    assert [[], ["Out[6]: none of these functions was called"]] == seen["uncalled"]
    assert 0 == seen["kept"]
    expected = "expected a function or a class that is written in Python"
    assert [f"UsageError: invalid value 'len' for %imu lines -f: {expected}"] == seen["C"]
    expected = "expected -f FUNCTION [-f FUNCTION] STATEMENT"
    assert [f"UsageError: invalid value 'len([])' for %imu lines: {expected}"] == seen["no name"]
    message = "UsageError: %imu lines cannot await outside a function; %%imu lines can"
    assert [message] == seen["cannot await"]
    assert ["UsageError: %imu lines: invalid syntax: x = = 3"] == seen["syntax"]
    assert re.fullmatch(r"Cell In\[\d+\], line 1", seen["raises"][2])
    assert "----> 1 1/0" == seen["raises"][3]
    assert 5 == len(seen["raises"])


def test_as_data_and_in_notebooks(shell: Shell) -> None:
    """The table is data for pandas, and HTML with bars in which everything is escaped."""
    seen = shell(r"""
        run("%imu style html")
        out = run("%%imu lines\na = '<b>'\nb = 2")
        table = shell.user_ns["imu_last"]
        seen["html"] = table._repr_html_()
        seen["rows"] = [sorted(row) for row in table.lines]
        seen["text"] = repr(table).splitlines()
        seen["widths"] = [len(line) for line in table.text_lines(width=40)]
    """)
    keys = ["line", "peak_mib", "raised", "seconds", "source", "text", "total_mib", "used_mib"]
    assert [keys, keys] == seen["rows"]
    assert "&lt;b&gt;" in seen["html"]
    assert "<b>" not in seen["html"]
    assert 2 == seen["html"].count("linear-gradient")
    assert seen["text"][1].endswith("  2  a = '<b>'")
    assert max(seen["widths"]) <= 40


@pytest.mark.usefixtures("interrupts_are_heard")
def test_unloading_takes_it_away(shell: Shell) -> None:
    """After it, cells are IPython's own again; an interrupt inside a cell leaves nothing behind."""
    seen = shell(r"""
        run("%%imu lines\nimport signal; signal.raise_signal(signal.SIGINT)\n1")
        seen["rows"] = [row["text"] for row in shell.user_ns["imu_last"].lines]
        run("%unload_ext ipython_hooks")
        seen["after"] = error("%%imu lines\n1")
        seen["transformers"] = [len(shell.ast_transformers), len(shell.events.callbacks["pre_run_cell"])]
        import builtins
        seen["left"] = [name for name in vars(builtins) if "imu" in name]
    """)
    assert ["import signal", "signal.raise_signal(signal.SIGINT)"] == seen["rows"]
    assert "UsageError: Cell magic `%%imu` not found." == seen["after"][-1]
    assert [0, 0] == seen["transformers"]
    assert [] == seen["left"]
