"""``pykernels bench``."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pykernels.cli.progress import Progress
from pykernels.cli.table import table
from pykernels.families import select

_NEEDED = ("pytest", "pytest_benchmark", "matplotlib")
_STUDIES = {
    "fp8": "pykernels.bench.real",
    "search": "pykernels.bench.real_search",
    "tiered": "pykernels.bench.real_tiered",
    "attention": "pykernels.bench.attention_table1",
    "inference": "pykernels.bench.inference_study",
}
"""Modules whose ``study(quick, progress)`` measures a family on real data."""


def bench(family: str | None, quick: bool, copy: Path | None, folder: Path) -> int:
    """Run bench/ in a process of its own, print one table and write the report; 1 if a provider failed.

    `folder` receives ``results.json`` of pytest-benchmark, ``summary.json``, pytest's own output, the
    report and its plots.
    """
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        print(f"bench needs {', '.join(missing)}: pip install 'pykernels[bench]'", file=sys.stderr)
        return 1
    os.environ.update(OMP_WAIT_POLICY="PASSIVE", OPENBLAS_THREAD_TIMEOUT="4")  # nobody's threads spin on after work
    folder.mkdir(parents=True, exist_ok=True)
    results_file = folder / "results.json"
    results_file.unlink(missing_ok=True)
    families = [chosen.name for chosen in select(family)]
    status = _measure(families, quick, results_file)
    if not results_file.exists() or not results_file.stat().st_size:
        print(f"nothing was measured: see {folder / 'pytest.txt'}", file=sys.stderr)
        return 1
    results = json.loads(results_file.read_text())
    chosen = [name for name in families if name in _STUDIES]
    results["studies"] = studies = [study for name in chosen if (study := _study(name, quick)) is not None]
    results_file.write_text(json.dumps(results, indent=1))
    if copy is not None:
        shutil.copyfile(results_file, copy)

    from pykernels.bench import report

    (folder / "summary.json").write_text(json.dumps(report.summary(results), indent=1) + "\n")
    print(table(report.COLUMNS, [row.cells() for row in report.rows(results)]))
    print("\n" + "\n".join(report.notes(results)))
    for study in studies:
        _print_study(study)
    print(f"\n{report.write(results, folder)}")
    return status if len(studies) == len(chosen) else 1


def _measure(families: list[str], quick: bool, results_file: Path) -> int:
    folder = Path(importlib.import_module("pykernels.bench.harness").__file__ or "").parent
    command = [sys.executable, "-m", "pytest", *(str(folder / f"bench_{name}.py") for name in families)]
    command += ["-q", "-s", "-p", "no:cacheprovider", "--benchmark-columns=median,iqr,rounds", "--benchmark-sort=name"]
    command += ["--rootdir", str(folder)]
    command += [f"--benchmark-json={results_file.resolve()}", "--pykernels-progress"]
    if quick:
        command.append("--pykernels-quick")
    with open(results_file.with_name("pytest.txt"), "w") as output, TemporaryDirectory() as storage:
        ran = subprocess.run([*command, "--benchmark-storage", storage], stdout=output)
    return 1 if ran.returncode else 0


def _study(family: str, quick: bool) -> dict[str, Any] | None:
    """The family's tables of real data; None, and a line on standard error, if they cannot be made."""
    try:
        return _run_study(family, quick)
    except Exception as error:
        print(f"no real data for {family}: {type(error).__name__}: {error}", file=sys.stderr)
        return None


def _run_study(family: str, quick: bool) -> dict[str, Any]:
    module = importlib.import_module(_STUDIES[family])
    with Progress(f"{family} on real data", 1) as progress:

        def show(done: int, total: int, label: str) -> None:
            progress.done, progress.total = done, total
            progress.show(label)

        return dict(module.study(quick, show))


def _print_study(study: dict[str, Any]) -> None:
    from pykernels.bench.report import cell_text

    print(f"\n{study['title']}: {study['source']}")
    for each in study["tables"]:
        print(f"\n{each['title']}")
        print(table(each["columns"], [[cell_text(cell) for cell in row] for row in each["rows"]]))
    for note in study["notes"]:
        print(f"- {note}")
