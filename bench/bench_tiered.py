"""3T, transform, energy and whole step, beside PyTorch as published, PyTorch vectorised, and OpenMM: the cases."""

from __future__ import annotations

from typing import Any

import pytest

from pykernels.bench import harness
from pykernels.bench.harness import MIN_ROUNDS, Group
from pykernels.bench.tiered_peers import OPENMM, PUBLISHED, VECTORISED
from pykernels.bench.tiered_workloads import evaluating, stepping, transforming

ROUNDS = {True: 3, False: MIN_ROUNDS}
"""Of groups with a peer that takes seconds."""


@pytest.mark.benchmark(timer=harness.CLOCK)
def test_tiered(benchmark: Any, record: harness.Record, group: Group, provider: str) -> None:
    harness.replay(benchmark, group, record, provider)


def groups(quick: bool) -> list[Group]:
    """All groups of this file; `quick` takes fewer rounds of the slow ones, and leaves out large batches of peers."""
    rounds = ROUNDS[quick]
    return [
        transforming(1, (PUBLISHED, VECTORISED)),
        transforming(64, (VECTORISED,)),
        evaluating(1, (PUBLISHED, VECTORISED, OPENMM), rounds),
        evaluating(32, (OPENMM,) if quick else (VECTORISED, OPENMM), rounds),
        stepping(1, (PUBLISHED, VECTORISED), rounds),
        stepping(8, (VECTORISED,), rounds),
    ]
