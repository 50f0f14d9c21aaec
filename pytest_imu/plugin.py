"""pytest-imu's entry point: options, markers, and which of the other modules a run needs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Mapping
from typing import TYPE_CHECKING, Any

import pytest

from pytest_imu import comparing, workers
from pytest_imu.markers import BUDGETS, GROWTH_MARKER, MARKER_LINES, budgets_by_item
from pytest_imu.options import add_options
from pytest_imu.recording.fixture import imu
from pytest_imu.report.paths import run_log
from pytest_imu.report.reporter import REPORTER, Reporter
from pytest_imu.settings import OPTIONS, SETTINGS, Settings

if TYPE_CHECKING:
    from pytest_imu.core.alone import Alone
    from pytest_imu.core.budgets import AnyBudget

__all__ = ["imu"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the options."""
    add_options(parser, OPTIONS.values())


@pytest.hookimpl
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Under `--imu-simulate` start again under valgrind, or see to it that the workers are."""
    # Behind xdist's own hook, which comes first and decides how many workers there will be.
    if not config.option.no_imu and OPTIONS["simulate"].read(config) != "off":
        from pytest_imu.simulation.restart import begin

        begin(config)


def pytest_configure(config: pytest.Config) -> None:
    """Read the options once; in the controlling process, get ready to report."""
    settings = config.stash[SETTINGS] = Settings.from_config(config)
    for line in MARKER_LINES:
        config.addinivalue_line("markers", line)
    config.pluginmanager.register(workers.Teller(), "imu-teller")
    if not workers.is_worker(config):
        comparing.read_base(config, settings)
        reporter = config.stash[REPORTER] = Reporter(config, settings)
        reporter.begin()
        config.pluginmanager.register(reporter, "imu-reporter")
        # Without xdist nobody calls its hooks; whether it will is not known yet, for it configures last.
        config.pluginmanager.register(workers.Controller(settings, reporter), "imu-workers")
        if settings.junit and comparing.BASE in config.stash:
            from pytest_imu.report.compared import EarlierPeaks

            config.pluginmanager.register(
                EarlierPeaks(config, config.stash[comparing.BASE]), "imu-earlier"
            )
        if settings.report and not settings.off and config.getoption("verbose", 0) > 0:
            from pytest_imu.report.progress import PeakBehindOutcome

            config.pluginmanager.register(PeakBehindOutcome(config), "imu-progress")
        if settings.html_path is not None and not settings.off:
            from pytest_imu.html.hooks import PageWriter

            writer = PageWriter(config, settings, settings.html_path, reporter)
            config.pluginmanager.register(writer, "imu-page")
        if config.getoption("htmlpath", None):  # pytest-html's own option
            from pytest_imu.report.others import HtmlReport

            config.pluginmanager.register(HtmlReport(config), "imu-html")


def pytest_report_header(config: pytest.Config) -> str | None:
    """Say of a simulated run that it is one."""
    settings = config.stash[SETTINGS]
    if settings.simulate == "off" or settings.off or settings.json_to_stdout:
        return None
    from pytest_imu.simulation.restart import header

    return header(config, settings)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Under `--imu-simulate=budgets` leave only the tests that have a budget on events."""
    settings = config.stash[SETTINGS]
    if settings.simulate == "budgets" and not settings.off:
        from pytest_imu.simulation.restart import keep_budgeted

        keep_budgeted(config, items)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Read every test's budgets; register the recorder where there is something to measure."""
    config, settings = session.config, session.config.stash[SETTINGS]
    with workers.telling_usage_errors(config):
        budgets = budgets_by_item(
            session.items, settings.default_budgets, warmup=settings.warmup, hard=settings.hard
        )
    if settings.off:
        workers.tell_skipped(config, sum(map(len, budgets.values())))
        return
    for item, own in budgets.items():
        item.stash[BUDGETS] = own
    run_again = None
    # Installed but not asked for, the plugin is free: what isolates and measures is imported here.
    if settings.isolate != "off":
        from pytest_imu.core.counters.callgrind.command import running_tool
        from pytest_imu.isolation.confirm import run_alone_for
        from pytest_imu.isolation.hooks import Isolation

        # Under valgrind there is no memory to keep apart, and a forked child is not counted.
        if running_tool() is None:
            # Before the recorder: what comes later is called first, and it measures before the fork.
            run_again = run_alone_for(session)
            config.pluginmanager.register(Isolation(session, settings, run_again), "imu-isolation")
    # Behind the isolation, which is for budgets: what a test was compared with makes it no other test.
    comparing.add_limits(config, session.items)
    if budgets or settings.measure_all:
        _record(session, settings, budgets, run_again)
    is_hard = any(getattr(budget, "hard", False) for own in budgets.values() for budget in own)
    if is_hard or settings.limit is not None:
        from pytest_imu.limits.hooks import limit_tests

        limit_tests(config, settings)


def _record(
    session: pytest.Session,
    settings: Settings,
    budgets: Mapping[pytest.Item, tuple[AnyBudget, ...]],
    run_again: Callable[..., Alone] | None,
) -> None:
    """Register what measures tests; *run_again* runs one once more, where something else needs it."""
    config = session.config
    from pytest_imu.recording.recorder import Recorder, SetupEnd, counter_source
    from pytest_imu.recording.teardown import TeardownRecorder

    run_alone = None
    if run_again is None and _may_run_again(session, settings):
        from pytest_imu.isolation.confirm import run_alone_for

        run_again = run_alone_for(session)
        run_alone = run_again if settings.confirm else None
    explainer = None
    if settings.why != "off" and run_again is not None:
        from pytest_imu.why.explain import Explainer

        explainer = Explainer(config, settings, run_again)
    counters = counter_source(settings, budgets.values())
    call_again = None
    if any(budget.name == GROWTH_MARKER for own in budgets.values() for budget in own):
        from pytest_imu.leaks.calls import Calls

        calls = Calls(settings)
        config.pluginmanager.register(calls, "imu-calls")
        call_again = calls.count_growth
    recorder = Recorder(
        settings,
        run_log(config, settings),
        counters,
        run_alone,
        explainer=explainer,
        call_again=call_again,
    )
    config.pluginmanager.register(recorder, "imu-recorder")
    config.pluginmanager.register(SetupEnd(recorder), "imu-setup-end")
    if settings.timeline_ns is not None:
        from pytest_imu.recording.timeline import TimelineRecorder

        timeline = TimelineRecorder(recorder, settings.timeline_ns)
        config.pluginmanager.register(timeline, "imu-timeline")
    if any(budget.phase == "all" for own in budgets.values() for budget in own):
        config.pluginmanager.register(TeardownRecorder(recorder, settings), "imu-teardown")
    if config.getoption("allure_report_dir", None):  # allure-pytest's own option
        from pytest_imu.report.others import AllureReport

        config.pluginmanager.register(AllureReport(config), "imu-allure")
    if not workers.is_worker(config):
        config.stash[REPORTER].prepare()


def _may_run_again(session: pytest.Session, settings: Settings) -> bool:
    """Tell whether any test may have to run once more: to decide about it, or to explain it."""
    from pytest_imu.core.alone import can_decide

    budgets = [budget for item in session.items for budget in item.stash.get(BUDGETS, ())]
    may_explain = settings.why == "all" or (settings.why == "broken" and bool(budgets))
    return may_explain or (settings.confirm and any(map(can_decide, budgets)))


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Generator[None, dict[str, Any] | None, dict[str, Any] | None]:
    """Send what came with a report in plain form."""
    data = yield
    if data and hasattr(data.get("imu"), "to_dict"):
        data["imu"] = data["imu"].to_dict()
    return data


@pytest.hookimpl(tryfirst=True)
def pytest_report_from_serializable(data: dict[str, Any]) -> None:
    """Rebuild what came with a report, before pytest rebuilds the report."""
    if isinstance(data.get("imu"), dict):
        from pytest_imu.recording.record import PhaseRecord

        data["imu"] = PhaseRecord.from_dict(data["imu"])
        data["user_properties"] = [_with_shared_name(one) for one in data["user_properties"]]


def _with_shared_name(user_property: Any) -> Any:  # Any: other plugins may put in what they like
    # Each report brings the same names anew, and pytest keeps all reports until the end.
    match user_property:
        case (str(name), value):
            return sys.intern(name), value
    return user_property
