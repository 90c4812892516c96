"""pytest's side of the harness: cases, measurement on first need, and what the JSON says of the run."""

from __future__ import annotations

import gc
import os
from typing import Any

import pytest

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")

from pykernels import machine, roofs
from pykernels.bench import harness
from pykernels.bench.pinning import Pinning
from pykernels.cli.progress import Progress

BUDGET = {True: 0.8, False: 4.0}
"""Seconds for the rounds of one group, by `--pykernels-quick`."""


class Session:
    """Measures each group once, keeps the durations and forgets the arrays."""

    def __init__(self, quick: bool, timed: bool) -> None:
        self.quick, self.timed = quick, timed
        self.pinning = Pinning()
        self.machine: dict[str, Any] = {}
        self.scaling: dict[str, float] = {}
        self.records: dict[str, harness.Record] = {}
        self.errors: dict[str, Exception] = {}
        self.progress: Progress | None = None

    def record(self, group: harness.Group) -> harness.Record:
        if not self.scaling:
            self._start()
        if group.name in self.errors:
            raise self.errors[group.name]
        if group.name not in self.records:
            try:
                self.records[group.name] = self._measure(group)
            except Exception as error:
                self.errors[group.name] = error.with_traceback(None)
                raise
            finally:
                gc.collect()
        return self.records[group.name]

    def _start(self) -> None:
        self.machine = machine.describe()
        self.scaling["free"] = roofs.thread_scaling()
        self.pinning.settle()
        if self.pinning.active:
            self.scaling["pinned"] = roofs.thread_scaling()

    def _measure(self, group: harness.Group) -> harness.Record:
        if not self.timed:
            return harness.untimed(group)
        return harness.measure(group, BUDGET[self.quick], self.pinning.settle)


_SESSION = pytest.StashKey[Session]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--pykernels-quick", action="store_true", help="fewer cases and rounds")
    parser.addoption("--pykernels-progress", action="store_true", help="a progress bar on standard error")


def pytest_configure(config: pytest.Config) -> None:
    quick, timed = bool(config.getoption("--pykernels-quick")), not config.getoption("benchmark_disable")
    config.stash[_SESSION] = Session(quick, timed)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "provider" in metafunc.fixturenames:
        groups = metafunc.module.groups(metafunc.config.stash[_SESSION].quick)
        cases = [(group, name) for group in groups for name in group.measured]
        metafunc.parametrize(("group", "provider"), cases, ids=[f"{group.name} {name}" for group, name in cases])


@pytest.fixture
def record(request: pytest.FixtureRequest, group: harness.Group, provider: str) -> harness.Record:
    """The durations of the whole group; skips a provider that is not here."""
    found = request.config.stash[_SESSION].record(group)
    if provider in found.missing:
        pytest.skip(found.missing[provider])
    return found


def pytest_collection_finish(session: pytest.Session) -> None:
    if session.config.getoption("--pykernels-progress"):
        session.config.stash[_SESSION].progress = Progress("bench", len(session.items))


def pytest_runtest_setup(item: pytest.Item) -> None:
    progress = item.config.stash[_SESSION].progress
    if progress is not None:
        progress.show(item.callspec.params["group"].name if hasattr(item, "callspec") else item.name)


def pytest_runtest_teardown(item: pytest.Item) -> None:
    progress = item.config.stash[_SESSION].progress
    if progress is not None:
        progress.done += 1


def pytest_unconfigure(config: pytest.Config) -> None:
    progress = config.stash[_SESSION].progress
    if progress is not None:
        progress.close()


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    machine_info["pykernels"] = config.stash[_SESSION].machine


def pytest_benchmark_update_json(config: pytest.Config, benchmarks: Any, output_json: dict[str, Any]) -> None:
    session = config.stash[_SESSION]
    output_json["pykernels"] = {
        "quick": session.quick,
        "wait policy": os.environ["OMP_WAIT_POLICY"],
        "pinned": session.pinning.active,
        "thread scaling": session.scaling,
        "roofs": roofs.roofs(),
        "missing": {
            f"{name}: {provider}": reason
            for name, record in session.records.items()
            for provider, reason in record.missing.items()
        },
        "errors": [str(error) for error in session.errors.values()],
    }
