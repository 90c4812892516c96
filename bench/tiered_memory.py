"""Peak memory of steps of 3T, each measured in a process of its own."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pykernels
from pykernels.bench import tiered_data as data
from pykernels.bench import tiered_peers as peers
from pykernels.bench.harness import OURS

COLUMNS = ("provider", "conformations", "added at the peak MB", "MB for each further one")
CONFORMATIONS = {OURS: (1, 64), peers.VECTORISED: (1, 8), peers.PUBLISHED: (1,)}


def table(providers: tuple[str, ...] = tuple(CONFORMATIONS)) -> dict[str, Any]:
    """What two steps add to the input, tables of the force field included; by provider that is here."""
    rows: list[list[Any]] = []
    for name in providers:
        if name in peers.absent():
            continue
        found = [(count, measure(name, count)) for count in CONFORMATIONS[name]]
        for count, added in found:
            further = (added - found[0][1]) / (count - 1) if count > 1 else None
            rows.append([name, count, *(None if size is None else round(size / 1e6, 2) for size in (added, further))])
    title = f"Peak memory of a step of 3T, {data.system()[0]} fp32, all pairs"
    return {"title": title, "columns": COLUMNS, "rows": rows}


def measure(provider: str, count: int) -> int:
    """Bytes that two steps of `count` conformations add at their peak to a process that holds the input."""
    command = [sys.executable, "-m", __name__, provider, str(count)]
    path = os.pathsep.join([str(Path(pykernels.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    ran = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": path})
    return int(json.loads(ran.stdout))


def main(provider: str, count: str) -> None:
    """Print the number that `measure` reads. Linux only: the peak is reset by /proc/self/clear_refs."""
    from pykernels.bench.tiered_polymer import polymer

    _steps(provider, polymer(40, 30, 12, 6, 3, 5), 1)  # imports, compilation, threads
    arrays = data.system()[1]
    before = _kilobytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    _steps(provider, arrays, int(count))
    print(json.dumps(1024 * (_kilobytes("VmHWM") - before)))


def _steps(provider: str, arrays: data.Arrays, count: int) -> None:
    positions = data.conformations(arrays, 1).repeat(count, 0)
    if provider == OURS:
        from pykernels import tiered

        descent = tiered.Descent(data.tiers(arrays), data.force_field(arrays), positions)
        step: Any = functools.partial(descent.run, 1, 1e-3)
    else:
        step = peers.step(provider, arrays, list(data.moves(arrays, count, 0.0).values()), positions, 1e-3)
    step()
    step()


def _kilobytes(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


if __name__ == "__main__":
    main(*sys.argv[1:])
