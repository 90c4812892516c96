"""The benchmark harness: exact replay, interleaving, verification, tables and report."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pytest_benchmark")
pytest.importorskip("matplotlib")

from pykernels import roofs
from pykernels.bench import harness, report
from pykernels.bench.harness import ROOF, Disagreement, Group, Workload
from pykernels.bench.pinning import Pinning

FOLDER = Path(harness.__file__).parent

BENCH = """
import pytest
from pykernels.bench import harness
from pykernels.bench.harness import Group, Workload

def groups(quick):
    def build():
        return Workload({"pykernels": lambda: 1, "fast": lambda: 1}, verify, {"absent": "it is not installed"})

    def verify(provider, result):
        if DISAGREE and provider == "fast":
            raise harness.Disagreement("one value differs")

    return [Group("op", "case", ("pykernels", "fast", "absent"), build, 4, 1 << 16)]

@pytest.mark.benchmark(timer=harness.CLOCK)
def test_it(benchmark, record, group, provider):
    record.seconds[provider][:] = SECONDS[provider]
    harness.replay(benchmark, group, record, provider)
"""
SECONDS = {"pykernels": [0.1, 0.2, 0.3], "fast": [0.1 + 0.2, 1e-9, 7.0], ROOF: [0.05, 0.1]}


def _run(tmp_path, disagree, *options):
    (tmp_path / "conftest.py").write_text((FOLDER / "conftest.py").read_text())
    (tmp_path / "test_group.py").write_text(f"SECONDS = {SECONDS!r}\nDISAGREE = {disagree}\n{BENCH}")
    root = str(FOLDER.parent if FOLDER.parent.name != "pykernels" else FOLDER.parent.parent)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(tmp_path),
        str(tmp_path),
    ]
    command += ["-c", os.devnull, "--benchmark-json", str(tmp_path / "out.json"), *options]
    path = os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])
    apart = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST")}
    return subprocess.run(command, capture_output=True, text=True, env={**apart, "PYTHONPATH": path}, cwd=tmp_path)


def test_pytest_benchmark_replays_the_recorded_durations_exactly(tmp_path):
    ran = _run(tmp_path, False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "3 passed, 1 skipped" in ran.stdout
    results = json.loads((tmp_path / "out.json").read_text())
    found = {b["params"]["provider"]: b["stats"]["data"] for b in results["benchmarks"]}
    assert found == SECONDS
    info = {b["params"]["provider"]: b["extra_info"] for b in results["benchmarks"]}
    assert {name: each["role"] for name, each in info.items()} == {"pykernels": "ours", "fast": "peer", ROOF: "roof"}
    assert info["fast"]["bytes"] == 1 << 16 and info["fast"]["limit"] == "copy" and info["fast"]["roof_seconds"] > 0
    assert results["pykernels"]["missing"] == {"op case: absent": "it is not installed"}
    assert results["machine_info"]["pykernels"]["versions"]["numpy"] == np.__version__


def test_a_provider_that_disagrees_is_an_error_and_is_not_timed(tmp_path):
    ran = _run(tmp_path, True)
    assert ran.returncode == 1
    assert "op case: fast: Disagreement: one value differs" in ran.stdout
    assert not (tmp_path / "out.json").exists() or not (tmp_path / "out.json").read_text()


def test_disabled_benchmarks_still_verify(tmp_path):
    assert _run(tmp_path, False, "--benchmark-disable").returncode == 0
    assert _run(tmp_path, True, "--benchmark-disable").returncode == 1


def test_providers_take_turns_and_the_first_moves_on():
    order = []
    calls = {name: (lambda name=name: order.append(name)) for name in "abc"}
    ticks = iter(range(100))
    seconds = harness.interleave(calls, 4, {"a": 1, "b": 2, "c": 1}, timer=lambda: float(next(ticks)))
    assert "".join(order) == "abbcbbcacabbabbc"
    assert seconds == {"a": [1.0] * 4, "b": [0.5] * 4, "c": [1.0] * 4}


def test_measure_verifies_each_provider_once_and_names_the_culprit():
    seen = []

    def verify(provider, result):
        seen.append(provider)
        if result != 1:
            raise Disagreement("not one")

    def group(**calls):
        return Group("op", "case", tuple(calls), lambda: Workload(calls, verify), 1, 4096)

    record = harness.measure(group(a=lambda: 1, b=lambda: 1), budget=0.01)
    assert seen == ["a", "b"]
    assert set(record.seconds) == {"a", "b", ROOF}
    assert all(len(each) >= harness.MIN_ROUNDS and min(each) > 0 for each in record.seconds.values())
    with pytest.raises(Disagreement, match=r"op case: b: .*not one"):
        harness.measure(group(a=lambda: 1, b=lambda: 2), budget=0.01)


def test_the_fastest_of_a_workloads_own_limits_counts():
    calls = {"torch": lambda: 1}
    limits = {"torch": lambda: time.sleep(0.002), "numpy": lambda: time.sleep(0.001)}
    group = Group("op", "case", ("torch",), lambda: Workload(calls, lambda *_: None, limits=limits), 1, 1, "product")
    seconds = harness.measure(group, budget=0.01).seconds
    assert set(seconds) == {"torch", ROOF}
    assert max(seconds["torch"]) < 0.001 <= min(seconds[ROOF]) < 0.002


def test_rotation_visits_every_buffer():
    visited = []
    call = harness.rotate([lambda i=i: visited.append(i) for i in range(3)])
    for _ in range(7):
        call()
    assert visited == [0, 1, 2, 0, 1, 2, 0]
    assert harness.rotations(1 << 40) == 1 and harness.rotations(1) == 512


def test_roofs_move_what_they_say():
    x = np.arange(1 << 20, dtype=np.uint32)
    out = np.zeros_like(x)
    roofs.copy(x, out)
    np.testing.assert_array_equal(out, x)
    x[123] = 0x80000000 | 0x7F000000
    assert roofs.read(x) == 0x7F000000


@pytest.mark.skipif(not Pinning().active, reason="one core, or threads cannot be pinned here")
def test_pinning_keeps_the_main_thread_and_the_workers_apart():
    roofs.read(np.zeros(1 << 20, np.uint32))
    pinning = Pinning()
    try:
        pinning.settle()
        cores = {int(t): os.sched_getaffinity(int(t)) for t in os.listdir("/proc/self/task")}
        assert cores.pop(os.getpid()) == {pinning.cores[0]}
        assert cores and all(len(c) == 1 and c != {pinning.cores[0]} for c in cores.values())
    finally:
        pinning.release()
    assert os.sched_getaffinity(0) == set(pinning.cores)


def _benchmark(operation, case, provider, role, median, **info):
    extra = {"operation": operation, "case": case, "provider": provider, "role": role, "elements": 1 << 24}
    extra |= {"bytes": 5 << 24, "flops": 1 << 24, "limit": "copy", "roof_seconds": 0.0015, "p20": median, "p80": median}
    return {"stats": {"median": median}, "extra_info": extra | {"allocation": "out=", "sweep": None} | info}


@pytest.fixture
def results():
    sweep = [
        _benchmark("encode", f"fp32 {n}", name, role, n * cost + 1e-6, elements=n, sweep="encode fp32")
        for n in (1 << 10, 1 << 16, 1 << 24)
        for name, role, cost in (("pykernels", "ours", 1e-10), ("torch", "peer", 3e-10), ("copy limit", "roof", 9e-11))
    ]
    machine = {
        "cpu": "Model <1>", "cpu target": "znver4", "vector bits": 512, "numba threads": 2, "threading layer": "omp",
        "gpu": None, "versions": {"numpy": "2"}, "commit": None,
    }  # fmt: skip
    return {
        "machine_info": {"pykernels": machine},
        "pykernels": {
            "thread scaling": {"free": 1.0, "pinned": 1.98}, "pinned": True, "missing": {}, "errors": [],
            "roofs": {"copy": 4e10, "read": 8e10, "GEMM": 1e11},
        },
        "benchmarks": [
            *sweep,
            _benchmark("quantize", "row", "pykernels", "ours", 0.002),
            _benchmark("quantize", "row", "torch", "peer", 0.050),
            _benchmark("quantize", "row", "torch.compile", "peer", 0.006),
            _benchmark("quantize", "row", "copy limit", "roof", 0.0015),
            _benchmark("overhead", "16", "pykernels", "ours", 2e-6, limit=None, roof_seconds=None),
        ],
    }  # fmt: skip


def test_rows_name_the_best_peer_and_the_share_of_the_limit(results):
    row = next(row for row in report.rows(results) if row.operation == "quantize")
    assert row.cells() == ("quantize", "row", "2.00", "6.00", "torch.compile", "3.00", "75", "copy")
    alone = next(row for row in report.rows(results) if row.operation == "overhead")
    assert alone.cells() == ("overhead", "16", "0.00200", "", "", "", "", "")


def test_notes_warn_when_threads_share_a_core(results):
    assert not any("WARNING" in note for note in report.notes(results))
    results["pykernels"]["thread scaling"] = {"free": 1.0}
    assert any("WARNING" in note for note in report.notes(results))


def test_report_is_one_file_without_outside_resources(results, tmp_path):
    study = {
        "title": "On data",
        "source": "a <model>",
        "tables": [{"title": "SQNR", "columns": ["format", "dB"], "rows": [["e4m3fn", 31.5]]}],
        "notes": ["a note"],
    }
    results["studies"] = [study]
    page = report.write(results, tmp_path).read_text()
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert len(sources) == 3 and all(source.startswith("data:image/png;base64,") for source in sources)
    assert "http" not in page and "url(" not in page and "@import" not in page
    for text in ("Model &lt;1&gt;", "On data", "a &lt;model&gt;", "torch.compile", "31.50", "a note"):
        assert text in page
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".html", ".png", ".png", ".png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in tmp_path.glob("*.png"))


def test_report_of_nothing_but_one_row(results, tmp_path):
    results["benchmarks"] = results["benchmarks"][-1:]
    start = time.perf_counter()
    assert "overhead" in report.write(results, tmp_path).read_text()
    assert time.perf_counter() - start < 5
