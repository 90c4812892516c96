"""A token of each sequence as one program: the bits of the blocks, which `test_decoder` holds to a plain decoder."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numba
import numpy as np
import plain_decoder
import pytest
from conftest import HAS_TORCH, run_threads, same_bits

from pykernels._arrays import dtype_of
from pykernels.inference import Config, Decoder
from pykernels.inference._step import PROGRAMS, Steps

SERIAL = Config(vocab=97, layers=3, width=48, hidden=80, heads=4, kv_heads=2, head_dim=16)
CONFIGS = {
    "serial": SERIAL,
    "parallel": replace(SERIAL, block="parallel", kv_heads=1, head_dim=32, tied=False, window=4),
    "gemma": replace(SERIAL, norm_offset=1.0, embedding_scale=48**0.5, activation="gelu_tanh", kv_heads=4),
    "plain": replace(SERIAL, activation="gelu", width=50, hidden=70, **plain_decoder.PLAIN),
}


def decoder_of(name, dtype="float32", weights=None, granularity="row"):
    """With biases and norms that matter."""
    numbers, made = np.random.default_rng(3), {}
    for key, x in Decoder.random(CONFIGS[name], seed=3).weights.items():
        made[key] = (x + 0.3 * numbers.standard_normal(x.shape) * (x.ndim == 1)).astype(dtype_of(dtype))
    decoder = Decoder(CONFIGS[name], made)
    return decoder if weights is None else decoder.quantize(weights, granularity)


def told(decoder, sequences, rounds=4, **options):
    """The logits of tokens that follow prompts of several lengths, token by token."""
    cache, numbers = decoder.cache(sequences, 24, **options), np.random.default_rng(5)
    names = [cache.new() for _ in range(sequences)]
    for i, name in enumerate(names):
        decoder(numbers.integers(0, 97, (1, 2 + i)), cache, [name], last_only=True)
    steps = [decoder(numbers.integers(0, 97, (sequences, 1)), cache, names, last_only=i > 0) for i in range(rounds)]
    assert steps[0].shape == (sequences, 1, 97)
    return np.stack([np.asarray(x).reshape(sequences, 97) for x in steps])


def by_blocks(monkeypatch, *args, **options):
    with monkeypatch.context() as context:
        context.setattr(Steps, "__call__", lambda *args: None)
        return told(*args, **options)


def programs(decoder):
    return list(decoder._steps._programs.values())


@pytest.mark.parametrize("sequences", [1, 3, 8])
@pytest.mark.parametrize("name", CONFIGS)
def test_architectures(monkeypatch, name, sequences):
    decoder = decoder_of(name)
    same_bits(told(decoder, sequences), by_blocks(monkeypatch, decoder, sequences))
    assert len(programs(decoder)) == 1 and programs(decoder)[0] is not None


@pytest.mark.parametrize(
    ("dtype", "weights", "granularity", "options"),
    [
        ("float32", "int8", "row", {"dtype": "int8"}),
        ("bfloat16", None, "row", {"page_size": 3}),
        ("bfloat16", "int8", "row", {}),
        ("bfloat16", "int8", (1, 64), {"dtype": "int8", "page_size": 5}),
        ("float16", "int8", "tensor", {}),
        ("bfloat16", "e4m3fn", "row", {"dtype": "e4m3fn"}),
    ],
    ids=str,
)
def test_dtypes_and_caches(monkeypatch, dtype, weights, granularity, options):
    decoder = decoder_of("parallel", dtype, weights, granularity)
    same_bits(told(decoder, 2, **options), by_blocks(monkeypatch, decoder, 2, **options))
    assert programs(decoder)[0] is not None


@pytest.mark.skipif(not HAS_TORCH, reason="torch is not installed")
def test_tensors_give_what_arrays_give():
    import torch

    from pykernels.quant import QuantizedTensor

    def tensor(x):
        if isinstance(x, QuantizedTensor):
            return QuantizedTensor(torch.from_numpy(x.codes), torch.from_numpy(x.scale), x.granularity)
        return torch.from_numpy(x)

    decoder = decoder_of("plain", "float32", "int8")
    by_torch = Decoder(decoder.config, {name: tensor(x) for name, x in decoder.weights.items()})
    same_bits(told(by_torch, 2), told(decoder, 2))
    assert programs(by_torch)[0] is not None


def test_what_has_no_program_goes_through_blocks(monkeypatch):
    decoder = decoder_of("serial")
    told(decoder, 9, rounds=1)
    assert programs(decoder) == [None]
    halves = decoder_of("serial", "float32", "int8", (1, 32))
    told(halves, 1, rounds=1)
    assert programs(halves) == [None]
    narrow = Decoder.random(replace(SERIAL, head_dim=8))
    told(narrow, 1, rounds=1)
    assert programs(narrow) == [None]


def test_threads():
    decoder = decoder_of("serial")
    expected, before = told(decoder, 2), numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        same_bits(told(decoder, 2), expected)
    finally:
        numba.set_num_threads(before)
    run_threads(*[partial(lambda: same_bits(told(decoder, 2), expected))] * 4)


def test_programs_are_few():
    decoder = decoder_of("serial")
    for length in range(30, 31 + PROGRAMS):
        cache = decoder.cache(1, length)
        decoder([[1]], cache, [cache.new()])
    assert len(programs(decoder)) == PROGRAMS


def test_a_failure_leaves_the_cache_as_it_was(monkeypatch):
    decoder = decoder_of("serial")
    cache = decoder.cache(1, 24)
    sequence = cache.new()
    decoder([[1, 2]], cache, [sequence])
    monkeypatch.setattr(Steps, "_program", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        decoder([[3]], cache, [sequence])
    assert cache.lengths([sequence]).tolist() == [2]
