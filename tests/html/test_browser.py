"""The page in Chromium: what a reader does with it, and what it must never do by itself."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pages import HOSTILE, compared, many, measurement, page_of, row, verdict

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

pytestmark = pytest.mark.needs_chromium
FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic"),
    *("--no-first-run", "--disable-background-networking", "--disable-component-update"),
    *("--disable-sync", "--hide-scrollbars"),
)
STRICT = "default-src 'none'; style-src 'unsafe-inline'"
Load = Callable[..., "Chrome"]


@pytest.fixture(autouse=True)
def nothing_left_behind() -> None:
    """Leave the connections to the browser, which is started once for all, out of what is counted."""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Chrome]:
    """Start a browser for all these tests."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for flag in FLAGS:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    with pytest.MonkeyPatch.context() as patch:
        for name in ("NO_PROXY", "no_proxy"):  # the driver is on this machine
            patch.setenv(name, "localhost,127.0.0.1")
        driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
        yield driver
        driver.quit()


@pytest.fixture
def load(chromium: Chrome, tmp_path: Path) -> Iterator[Load]:
    """Return a function that opens a page from disk; at the end nothing was asked for but that file."""
    path = tmp_path / "imu.html"

    def loaded(
        html: str,
        *,
        at: str = "",
        policy: str = "",
        width: int = 1280,
        dark: bool = False,
        scripts: bool = True,
    ) -> Chrome:
        errors(chromium)  # those of other pages
        if policy:
            html = html.replace(
                "<title>", f'<meta http-equiv=Content-Security-Policy content="{policy}"><title>'
            )
        path.write_text(html, encoding="ascii")
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        chromium.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": not scripts})
        chromium.get("about:blank")
        chromium.get(f"{path.as_uri()}{at}")
        return chromium

    yield loaded
    chromium.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    messages = [json.loads(entry["message"])["message"] for entry in log_of(chromium, "performance")]
    asked = {
        message["params"]["request"]["url"].partition("#")[0]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    }
    assert {path.as_uri()} == asked - {"data:,"}


def js(browser: Chrome, script: str, *arguments: object) -> Any:
    """Return what a script tells of the page."""
    return browser.execute_script(f"return {script}", *arguments)


def shown(browser: Chrome) -> list[str]:
    """Return the names of the tests that the table shows, from its top."""
    names: list[str] = js(
        browser,
        "[...document.querySelectorAll('#tests tr.r')].map(row => row.cells[0].textContent.trim())",
    )
    return names


def click(browser: Chrome, selector: str) -> None:
    """Click on an element."""
    browser.find_element("css selector", selector).click()


def head(browser: Chrome, title: str) -> None:
    """Click on a column's heading."""
    js(
        browser,
        "[...document.querySelectorAll('#tests thead button')]"
        ".find(one => one.textContent.trim() === arguments[0]).click()",
        title,
    )


def type_into(browser: Chrome, selector: str, value: str) -> None:
    """Set what an input has, as typing does."""
    js(
        browser,
        "(input => { input.value = arguments[1]; input.dispatchEvent(new Event('input')) })"
        "(document.querySelector(arguments[0]))",
        selector,
        value,
    )


def log_of(browser: Chrome, kind: str) -> list[dict[str, Any]]:
    """Return what came since it was asked last."""
    entries: list[dict[str, Any]] = browser.get_log(kind)  # type: ignore[no-untyped-call]  # partly typed
    return entries


def errors(browser: Chrome) -> list[str]:
    """Return what the page's console has, as of a script that failed."""
    return [entry["message"] for entry in log_of(browser, "browser")]


def wait_for(browser: Chrome, script: str, *arguments: object) -> None:
    """Wait until a script tells something true: events come when the page has time for them."""
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(browser, 60, poll_frequency=0.05).until(lambda _: js(browser, script, *arguments))


FEW = (
    row("a.py::large", 30, call=measurement(30, kept_mib=2), worker="gw0"),
    row("b.py::middle", 20, second=1, call=measurement(20, kept_mib=9), worker="gw0"),
    row(
        "c.py::small",
        second=2,
        call=measurement(5, before_mib=59),
        worker="gw0",
        verdicts=(verdict("kept"),),
    ),
    row("d.py::broken", 10, second=3, worker="gw0", outcome="failed", verdicts=(verdict("broken"),)),
    row("e.py::skipped", call=None, second=4, worker="gw0", outcome="skipped"),
)
LARGEST_FIRST = ["a.py::large", "b.py::middle", "d.py::broken", "c.py::small", "e.py::skipped"]


def test_it_is_sorted_by_any_column(load: Load) -> None:
    """What has no number comes last, whichever way it is sorted; the heading says which way."""
    browser = load(page_of(FEW))
    assert LARGEST_FIRST == shown(browser)
    head(browser, "peak")
    assert ["c.py::small", "d.py::broken", "b.py::middle", "a.py::large", "e.py::skipped"] == shown(
        browser
    )
    head(browser, "kept")
    assert ["b.py::middle", "a.py::large"] == shown(browser)[:2]
    assert "descending" == js(browser, "document.querySelector('[aria-sort]').getAttribute('aria-sort')")
    head(browser, "test")
    assert sorted(LARGEST_FIRST) == shown(browser)
    head(browser, "outcome")
    assert "d.py::broken" == shown(browser)[0]
    assert [] == errors(browser)


def test_it_is_filtered(load: Load) -> None:
    """By words of the name, outcome, budget and what grew, together; the count says how many."""
    browser = load(page_of(FEW, comparison=compared(FEW, {"a.py::large": 10, "b.py::middle": 20})))
    type_into(browser, "#find", "PY a")
    assert ["a.py::large", "c.py::small"] == shown(browser)
    assert "2 of 5 tests" == js(browser, "document.getElementById('count').textContent")
    type_into(browser, "#find", "")
    type_into(browser, "#outcome", "failed")
    assert ["d.py::broken"] == shown(browser)
    type_into(browser, "#outcome", "")
    type_into(browser, "#budget", "any")
    assert ["d.py::broken", "c.py::small"] == shown(browser)
    type_into(browser, "#budget", "broken")
    assert ["d.py::broken"] == shown(browser)
    type_into(browser, "#budget", "")
    click(browser, "#grew")
    assert ["a.py::large"] == shown(browser)
    assert [] == errors(browser)


OPEN_PART = """
    (part => part?.offsetHeight ? part.previousElementSibling.cells[0].textContent.trim() : "")
    (document.querySelector("#tests tr.p.open"))
"""


def wait_for_part(browser: Chrome, name: str) -> None:
    """Wait until the part of a test is open, or none for an empty name: the address changes first."""
    wait_for(browser, f"{OPEN_PART.strip()} === arguments[0]", name)


def test_a_click_opens_a_tests_part_and_closes_it(load: Load) -> None:
    """Its address names it, and the way back is the browser's."""
    browser = load(page_of(FEW))
    click(browser, "#tests tr.r:nth-child(2) a")
    wait_for_part(browser, "b.py::middle")
    assert "#t1" == js(browser, "location.hash")
    click(browser, "#tests tr.r:nth-child(1) a")
    wait_for_part(browser, "a.py::large")
    click(browser, "#tests tr.r:nth-child(1) a")
    wait_for_part(browser, "")
    assert "" == js(browser, "location.hash")
    browser = load(page_of(FEW), at="#t3")
    wait_for_part(browser, "c.py::small")


def test_the_picture_names_a_test_and_leads_to_it(load: Load) -> None:
    """By the pointer and by the keyboard, also where a filter had left the test out."""
    from selenium.webdriver import ActionChains, Keys

    browser = load(page_of(FEW))
    type_into(browser, "#find", "skipped")
    plot = browser.find_element("css selector", ".plot")
    width = plot.size["width"]
    # From its middle: the second of five tests of one second each is at a third of four seconds.
    ActionChains(browser).move_to_element_with_offset(plot, round(width * (1.5 / 4 - 0.5)), 0).perform()
    tip = "document.getElementById('tip').textContent"
    assert "b.py::middle: peak 20.0, kept 9.0 MiB, 1.00 s" == js(browser, tip)
    ActionChains(browser).click().perform()
    wait_for_part(browser, "b.py::middle")
    assert LARGEST_FIRST == shown(browser)
    js(browser, "document.querySelector('.plot').focus()")
    ActionChains(browser).send_keys(Keys.HOME, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT).perform()
    assert js(browser, tip).startswith("c.py::small: ")
    ActionChains(browser).send_keys(Keys.ENTER).perform()
    wait_for_part(browser, "c.py::small")
    click(browser, "a.mark")
    wait_for_part(browser, "b.py::middle")
    assert [] == errors(browser)


def test_it_is_dark_for_those_who_want_it_so(load: Load) -> None:
    """Ground and text change places."""
    colours = "(style => [style.backgroundColor, style.color])(getComputedStyle(document.body))"
    light = js(load(page_of(FEW)), colours)
    dark = js(load(page_of(FEW), dark=True), colours)
    brightness = [[sum(map(int, one[4:-1].split(","))) for one in pair] for pair in (light, dark)]
    assert [[True, False], [False, True]] == [[one > 380 for one in pair] for pair in brightness]


@pytest.mark.parametrize("width", [400, 1280])
def test_no_page_is_wider_than_its_window(load: Load, width: int) -> None:
    """Neither for a name nor for a line that has no place to break."""
    rows = [*many(20), row(f"a.py::{'x' * 500}", verdicts=(verdict("broken", reason="y" * 500),))]
    browser = load(page_of(rows), width=width)
    js(browser, "document.querySelectorAll('#tests tr.r a').forEach(link => link.click())")
    assert width >= js(browser, "document.documentElement.scrollWidth")


@pytest.fixture(scope="module")
def large() -> str:
    """Return the page of 20,000 tests; most were skipped, which takes less time to write."""
    rows = many(20_000)
    skipped = [
        replace(one, outcome="skipped", setup=None, call=None, verdicts=()) for one in rows[2000:]
    ]
    return page_of([*rows[:2000], *skipped])


@pytest.fixture(scope="module")
def long() -> str:
    """Return the page of 1,001 tests, one more than stand in the page where scripts are to make them."""
    return page_of(many(1001))


def test_of_20000_rows_those_in_sight_are_made(load: Load, large: str) -> None:
    """From the first to the last, filtered and sorted, and one that is opened by its address."""
    browser = load(large)
    assert not browser.find_element("id", "more").is_displayed()
    assert "20,000 tests" == js(browser, "document.getElementById('count').textContent")
    top = shown(browser)
    assert 20 < len(top) < 300
    whole = js(browser, "document.documentElement.scrollHeight")
    assert 20_000 * 20 < whole
    scroll_and_draw(browser, whole)
    bottom = shown(browser)
    assert 20 < len(bottom) < 300
    assert not {*top} & {*bottom}
    last = js(
        browser, "[...document.querySelectorAll('#tests tr.r')].at(-1).getBoundingClientRect().bottom"
    )
    assert 0 < last < 900
    head(browser, "test")
    head(browser, "test")
    scroll_and_draw(browser, 0)
    assert "tests/models/deep/test_text.py::TestThings::test_number_9998[small-3]" == shown(browser)[0]
    type_into(browser, "#find", "number_19999[")
    assert ["tests/io/test_load.py::TestThings::test_number_19999[small-4]"] == shown(browser)
    js(browser, "(location.hash = '#t15000')")
    wait_for(browser, "document.querySelector('#tests tr.p.open')")
    assert (
        0 <= js(browser, "document.querySelector('#tests tr.p.open').getBoundingClientRect().top") < 900
    )
    wait_for(browser, OPEN_PART.strip())
    assert [] == errors(browser)


def scroll_and_draw(browser: Chrome, to: int) -> None:
    """Scroll, and wait until the page has drawn what is in sight then."""
    browser.execute_async_script(
        "scrollTo(0, arguments[0]); const done = arguments[1];"
        "requestAnimationFrame(() => requestAnimationFrame(() => requestAnimationFrame(done)))",
        to,
    )


def test_on_paper_there_are_all_rows(load: Load) -> None:
    """And afterwards on the screen again those in sight."""
    browser = load(page_of(many(600)))
    count = "document.querySelectorAll('#tests tr.r').length"
    assert js(browser, count) < 300
    js(browser, "dispatchEvent(new Event('beforeprint'))")
    assert 600 == js(browser, count)
    js(browser, "dispatchEvent(new Event('afterprint'))")
    assert js(browser, count) < 300


@pytest.mark.parametrize("policy", ["", f"{STRICT}; script-src 'unsafe-inline'"])
def test_without_scripts_everything_is_there(load: Load, long: str, policy: str) -> None:
    """All rows, also those that the script would have made, and the part that an address names."""
    browser = load(long, at="#t3", scripts=False, policy=policy)
    assert 1001 == len(browser.find_elements("css selector", "tr.r"))
    [part] = [one for one in browser.find_elements("css selector", "tr.p:target") if one.is_displayed()]
    assert "max_peak_mib" in part.text
    assert not browser.find_element("id", "filters").is_displayed()
    assert browser.find_element("css selector", ".plot svg").is_displayed()


def test_a_policy_without_scripts_shows_it(load: Load, long: str) -> None:
    """As artifacts are served: the rows are in the page, and styles are allowed."""
    browser = load(page_of(FEW), policy=STRICT)
    assert LARGEST_FIRST == shown(browser)
    assert not browser.find_element("id", "filters").is_displayed()
    bar = "getComputedStyle(document.querySelector('#tests td[style]')).backgroundImage"
    assert "gradient" in js(browser, bar)
    note = load(long, policy=STRICT).find_element("id", "more")
    assert note.text.startswith("1 more test, with a smaller peak, is shown where scripts run")


def test_a_policy_with_inline_scripts_lets_it_all_run(load: Load) -> None:
    """No handler in an attribute, and nothing evaluated."""
    browser = load(page_of(FEW), policy=f"{STRICT}; script-src 'unsafe-inline'")
    head(browser, "test")
    click(browser, "#tests tr.r:nth-child(2) a")
    wait_for_part(browser, "b.py::middle")
    assert [] == [error for error in errors(browser) if "data:," not in error]


@pytest.fixture(scope="module")
def hostile() -> str:
    """Return a page of hostile names among so many that some are in the page, and some are made."""
    return page_of(
        [
            *(row(f"{text}/a.py::{text}[{text}]", 90, outcome=text) for text in HOSTILE),
            *many(1000),
            *(row(f"{text}/b.py::{text}[{text}]", 0, outcome=text) for text in HOSTILE),
        ]
    )


@pytest.mark.parametrize("scripts", [True, False])
def test_hostile_names_are_shown_and_never_run(load: Load, hostile: str, *, scripts: bool) -> None:
    """No script runs but ours, nothing is hidden; that nothing is asked for every test here proves."""
    browser = load(hostile, scripts=scripts)
    if scripts:
        for _ in ("hostile outcomes that come before others", "and those that come behind them"):
            head(browser, "outcome")
            js(
                browser,
                "[...document.querySelectorAll('#tests tr.r a')].slice(0, 20).forEach(a => a.click())",
            )
            wait_for(browser, OPEN_PART.strip())
        assert "undefined" == js(browser, "typeof hostile")
        assert [] == errors(browser)
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    assert 2 == len(browser.find_elements("css selector", "script"))
    assert 0 == len(browser.find_elements("css selector", "img, iframe, [onerror], [onmouseover]"))
    assert browser.find_element("css selector", "tr.r").is_displayed()
    assert "<script>hostile=1</script>" in js(browser, "document.querySelector('main').textContent")
