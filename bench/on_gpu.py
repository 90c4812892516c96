"""Everything that needs a GPU, in one call: ``python -m pykernels.bench.on_gpu [OUT.json]``.

Times every family beside its peers and its limit, as measured in the same call, each kernel checked
against a peer before; then runs `pykernels check` of every family for as long as `SECONDS` allow.
Without a GPU it is a rehearsal: Triton's interpreter, tiny arrays, and times that mean nothing.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from typing import Any

SECONDS = 520.0
REHEARSED_CHECKS = 3
"""Checks of each family in a rehearsal."""


def main(out: str | None = None) -> int:
    start = time.perf_counter()
    import torch

    gpu = torch.cuda.is_available()
    if not gpu:
        os.environ.setdefault("TRITON_INTERPRET", "1")
    from pykernels.machine import describe

    from . import gpu_attention, gpu_fp8, gpu_linear, gpu_search, gpu_tiered, gpu_topk

    results: dict[str, Any] = {"machine": describe(), "gpu": gpu, "rows": [], "checks": {}, "failed": []}
    for part in (gpu_linear, gpu_attention, gpu_tiered, gpu_topk, gpu_search, gpu_fp8):
        try:
            for rows in part.measure(gpu):
                results["rows"] += rows
        except Exception:
            traceback.print_exc()
            results["failed"].append(part.__name__)
        _save(out, results)
    _check(results, gpu, start)
    _save(out, results)
    print(f"{time.perf_counter() - start:.0f} s; failed:", *results["failed"] or ["nothing"])
    return bool(results["failed"])


def _check(results: dict[str, Any], gpu: bool, start: float) -> None:
    """Run the families' checks, spread over all of them as time is left; each family has an equal part of it."""
    from pykernels.families import FAMILIES

    for number, family in enumerate(FAMILIES.values()):
        checks = list(family.checks(False, ["gpu"]))
        left = SECONDS - (time.perf_counter() - start)
        end = time.perf_counter() + left / (len(FAMILIES) - number)
        done = 0
        for check in _spread(checks) if gpu else checks[:REHEARSED_CHECKS]:
            if time.perf_counter() > end:
                break
            done += 1
            try:
                wrong = check.run()[1]
            except Exception:
                traceback.print_exc()
                wrong = -1
            if wrong:
                results["failed"].append(f"{check.operation} {check.case}")
        results["checks"][family.name] = {"run": done, "of": len(checks)}
        print(f"{family.name}: {done} of {len(checks)} checks run", flush=True)


def _spread(items: list[Any]) -> list[Any]:
    """The items in an order of which any first part comes from everywhere."""
    order = sorted(range(len(items)), key=lambda i: (i * 0x9E3779B9) & 0xFFFFFFFF)
    return [items[i] for i in order]


def _save(out: str | None, results: dict[str, Any]) -> None:
    if out is not None:
        with open(out, "w") as file:
            json.dump(results, file, indent=1)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
