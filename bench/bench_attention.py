"""Attention and halo attention beside torch: decoding with caches, prefill, images: the cases."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest

from pykernels.bench import halo_peers, harness
from pykernels.bench.attention_data import cache_bytes, step_of
from pykernels.bench.attention_peers import FOLDED, GROUPED, PRODUCTS
from pykernels.bench.attention_workloads import decoding, decoding_narrow, prefilling, skipping
from pykernels.bench.halo_workloads import Image, forward, training
from pykernels.bench.harness import MIN_ROUNDS, Group

DTYPES = ("bfloat16", "float32")
LENGTHS = {True: (1024, 8192), False: (1024, 8192, 65536)}
PREFILL = {True: (512, 2048), False: (512, 2048, 8192)}
ROUNDS = {True: 3, False: MIN_ROUNDS}
"""Of groups with a peer that takes most of a second."""

LARGEST = 1 << 31
"""Bytes of keys and values of the largest case; our cache, and torch's, hold as much each."""

SLOW = 1 << 27
"""Bytes of keys and values from which torch's grouped heads take seconds, and are left out."""


@pytest.mark.benchmark(timer=harness.CLOCK)
def test_attention(benchmark: Any, record: harness.Record, group: Group, provider: str) -> None:
    harness.replay(benchmark, group, record, provider)


def groups(quick: bool) -> list[Group]:
    """All groups of this file; `quick` leaves out long contexts, and torch's grouped heads but for multi-query."""
    rounds = ROUNDS[quick]
    shapes = [step_of(batch, 32, 8, length) for batch in (1, 8) for length in LENGTHS[quick]]
    long = [shape for shape in shapes if shape.keys == 8192] if quick else shapes
    return [
        *(decoding(dtype, step_of(8, 16, 1, 8192), (GROUPED, FOLDED, PRODUCTS), rounds) for dtype in DTYPES),
        *(
            decoding(
                dtype, shape, (*[GROUPED] * (cache_bytes(shape, dtype) < SLOW and not quick), FOLDED, PRODUCTS), rounds
            )
            for dtype in DTYPES
            for shape in shapes
            if cache_bytes(shape, dtype) <= LARGEST
        ),
        *(decoding_narrow(dtype, shape, rounds) for dtype in ("int8", "e4m3fn") for shape in long),
        *(
            prefilling(dtype, length, dim, causal, 4, rounds)
            for dtype in DTYPES
            for length in PREFILL[quick]
            for dim in (64, 128)
            for causal in (True, False)
        ),
        *(skipping(dtype, 2048, 128, 4) for dtype in DTYPES),
        *_halo(quick, rounds),
    ]


def _halo(quick: bool, rounds: int) -> list[Group]:
    gathered = (halo_peers.PRODUCTS, halo_peers.SDPA)
    images = [Image(side) for side in (64, 128)]
    if not quick:
        images += [Image(side, heads=4, dim=64) for side in (64, 128)]
    compiled = images[:1] if quick else images  # each takes many seconds to compile
    chosen = [forward(image, (*gathered, *[halo_peers.FLEX] * (image in compiled)), rounds) for image in images]
    if importlib.util.find_spec("torch") is not None:
        chosen += [training(image, gathered, rounds) for image in images]
    return chosen
