"""``pykernels check``."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field

from pykernels.cli.progress import Progress
from pykernels.cli.table import table
from pykernels.families import Check, Family, backends_here, select, usable_backends


@dataclass
class _Tally:
    cases: int = 0
    compared: int = 0
    mismatches: int = 0
    seconds: float = 0.0
    failures: list[str] = field(default_factory=list)


def check(family: str | None, exhaustive: bool) -> int:
    """Compare every usable backend with the reference; 1 if anything differs or raises, else 0."""
    backends = usable_backends()
    tallies: dict[tuple[str, str, str], _Tally] = {}
    for chosen in select(family):
        _run(chosen, exhaustive, backends, tallies)
    rows = [
        (*key, tally.cases, f"{tally.compared:,}", f"{tally.mismatches:,}", f"{tally.seconds:.2f}")
        for key, tally in tallies.items()
    ]
    print(table(("family", "operation", "backend", "cases", "compared", "mismatches", "seconds"), rows))
    for backend, state in backends_here().items():
        if state != "usable":
            print(f"not checked: {backend}: {state}")
    failures = [failure for tally in tallies.values() for failure in tally.failures]
    for failure in failures:
        print(f"FAILED {failure}", file=sys.stderr)
    print(f"{len(failures)} of {sum(tally.cases for tally in tallies.values())} cases failed")
    return 1 if failures else 0


def _run(family: Family, exhaustive: bool, backends: list[str], tallies: dict[tuple[str, str, str], _Tally]) -> None:
    checks = list(family.checks(exhaustive, backends))
    with Progress(f"check {family.name}", len(checks)) as progress:
        for one in checks:
            progress.show(f"{one.operation} {one.case} {one.backend}")
            tally = tallies.setdefault((family.name, one.operation, one.backend), _Tally())
            _count(one, tally)
            progress.step(one.operation)


def _count(one: Check, tally: _Tally) -> None:
    name = f"{one.operation} {one.case} [{one.backend}]"
    start = time.perf_counter()
    try:
        compared, mismatches = one.run()
    except Exception as error:
        tally.failures.append(f"{name}: {type(error).__name__}: {error}")
    else:
        tally.compared += compared
        tally.mismatches += mismatches
        if mismatches:
            tally.failures.append(f"{name}: {mismatches:,} of {compared:,} values differ from the reference")
    tally.cases += 1
    tally.seconds += time.perf_counter() - start
