"""Decoders beside transformers: a token at a time, prefill, multi-query beside multi-head; their small kernels beside
torch's; and the time of a plan."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pykernels.bench import decoder_workloads, harness
from pykernels.bench.harness import MIN_ROUNDS, Group
from pykernels.bench.inference_data import LARGE, SMALL, many_heads
from pykernels.bench.inference_peers import BY_COMPILER, COMPILED, EAGER, FP32
from pykernels.bench.inference_workloads import BFLOAT16, decoding, planning, prefilling, sharing_keys

CONTEXT, PROMPT = 128, 512
LAYERS = 3
"""Of a prefill: the rate of all is that of some."""

BATCHES = tuple(2**n for n in range(13))
ROUNDS = {True: 3, False: MIN_ROUNDS}


@pytest.mark.benchmark(timer=harness.CLOCK)
def test_inference(benchmark: Any, record: harness.Record, group: Group, provider: str) -> None:
    harness.replay(benchmark, group, record, provider)


def groups(quick: bool) -> list[Group]:
    """All groups of this file; `quick` leaves out the large decoder, float32, and what takes minutes to compile."""
    rounds, compiled = ROUNDS[quick], () if quick else BY_COMPILER
    part, sizes = replace(SMALL, layers=LAYERS), (SMALL,) if quick else (SMALL, LARGE)
    beside: dict[str, tuple[str, ...]] = {
        "int8": (BFLOAT16, EAGER, FP32, *compiled),
        "e4m3fn": (BFLOAT16,),
        "bfloat16": (EAGER,) if quick else (EAGER, COMPILED),
    }
    if not quick:
        beside["float32"] = (FP32,)
    return [
        *(
            decoding(size, weights, CONTEXT, peer_names, MIN_ROUNDS)
            for size in sizes
            for weights, peer_names in beside.items()
        ),
        prefilling(part, "int8", PROMPT, (BFLOAT16, EAGER, FP32), rounds),
        prefilling(part, "bfloat16", PROMPT, (EAGER,), rounds),
        *(sharing_keys(many_heads(4, 1024, 16), 4, length) for length in ((8192,) if quick else (8192, 16384))),
        *decoder_workloads.groups(rounds),
        planning("palm-540b", 256, BATCHES, rounds),
    ]
