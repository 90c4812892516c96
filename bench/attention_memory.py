"""Peak memory of prefill and of halo attention, each measured in a process of its own."""

from __future__ import annotations

import functools
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pykernels
from pykernels.bench import attention_data as data
from pykernels.bench import attention_peers, halo_peers
from pykernels.bench.harness import OURS

HEADS, DIM = 4, 128
PREFILL_COLUMNS = ("provider", "S", "output MB", "added at the peak MB", "kB for each further token")
PREFILLS = {OURS: (2048, 8192, 32768), attention_peers.SDPA: (2048, 8192), attention_peers.PRODUCTS: (1024, 4096)}

HALO_COLUMNS = ("operation", "image", "provider", "output MB", "added at the peak MB", "of ours")
SIDES = {True: (64,), False: (64, 128)}
FORWARD, TRAINING = "halo forward", "halo forward, gradients"
GATHERED = (OURS, halo_peers.PRODUCTS, halo_peers.SDPA)
HALOS = {FORWARD: (*GATHERED, halo_peers.FLEX), TRAINING: GATHERED}


def prefill_table(lengths: Mapping[str, tuple[int, ...]] | None = None) -> dict[str, Any]:
    """What one call adds to its inputs, its output included: not causal, since products have all scores anyway."""
    rows: list[list[Any]] = []
    for provider, sizes in (lengths or PREFILLS).items():
        if provider in attention_peers.absent():
            continue
        added = [measure("prefill", provider, size) for size in sizes]
        for n, size in enumerate(sizes):
            further = (added[n] - added[n - 1]) / (size - sizes[n - 1]) / 1e3 if n else None
            rows.append([provider, size, 4e-6 * HEADS * DIM * size, added[n] / 1e6, further])
    title = f"Peak memory of prefill, fp32, H={HEADS}, D={DIM}"
    return {"title": title, "columns": PREFILL_COLUMNS, "rows": rows}


def halo_table(quick: bool) -> dict[str, Any]:
    """The same of halo attention; its gradients are among the outputs."""
    rows: list[list[Any]] = []
    for operation, providers in HALOS.items():
        for side in SIDES[quick]:
            image = _image(side)
            here = [provider for provider in providers if provider not in halo_peers.absent()]
            if operation == TRAINING and attention_peers.absent():
                continue
            added = {provider: measure(operation, provider, side) for provider in here}
            output = 4e-6 * image.pixels * image.dim * (4 if operation == TRAINING else 1)
            for provider, size in added.items():
                rows.append([operation, f"{side}x{side}", provider, output, size / 1e6, size / added[OURS]])
    return {
        "title": f"Peak memory of halo attention, fp32, {_image(0).rest}",
        "columns": HALO_COLUMNS,
        "rows": rows,
    }


def measure(operation: str, provider: str, size: int) -> int:
    """Bytes that a call adds at its peak to a process that holds its inputs."""
    command = [sys.executable, "-m", __name__, operation, provider, str(size)]
    path = os.pathsep.join([str(Path(pykernels.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    env = {**os.environ, "PYTHONPATH": path, "MALLOC_MMAP_THRESHOLD_": "65536"}  # what is freed goes back at once
    ran = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
    return int(json.loads(ran.stdout.splitlines()[-1]))


def main(operation: str, provider: str, size: str) -> None:
    """Print the number that `measure` reads. Linux only: the peak is reset by /proc/self/clear_refs."""
    run = (_prefill if operation == "prefill" else functools.partial(_halo, operation))(provider, int(size))
    run()  # imports, compilation, threads
    before = _kilobytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    run()
    print(json.dumps(1024 * (_kilobytes("VmHWM") - before)))


def _prefill(provider: str, length: int) -> Callable[[], Any]:
    q, k, v = (data.normal((1, HEADS, length, DIM), "float32", seed) for seed in range(3))
    if provider == OURS:
        return functools.partial(importlib.import_module("pykernels.attention").attention, q, k, v)
    if provider == attention_peers.SDPA:
        return attention_peers.prefill(q, k, v, False)
    return attention_peers.products(q, k, v)


def _halo(operation: str, provider: str, side: int) -> Callable[[], Any]:
    from pykernels.bench import halo_workloads as workloads

    image = _image(side)
    given = workloads.inputs(image)
    if operation == FORWARD and provider == OURS:
        return functools.partial(workloads.ours, image, given)
    tensors = halo_peers.Inputs(*map(attention_peers.tensor, given))
    if operation == TRAINING:
        tensors = halo_peers.Inputs(*(x.requires_grad_() for x in tensors))
    if provider == OURS:
        make: Callable[[], Any] = functools.partial(workloads.ours, image, tensors)
    else:
        make = halo_peers.halo(provider, tensors, image.block, image.halo)
    if operation == FORWARD:
        return make
    upstream = attention_peers.tensor(data.normal(given.q.shape, "float32", 1))
    return functools.partial(workloads.gradients, make, tensors, upstream)


def _image(side: int) -> Any:
    from pykernels.bench.halo_workloads import Image

    return Image(side)


def _kilobytes(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


if __name__ == "__main__":
    main(*sys.argv[1:])
