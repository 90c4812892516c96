"""Decoders against one in plain NumPy, and their caches, kinds of arrays and bad input against each other."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import plain_decoder
import pytest

from pykernels.inference import Config, Decoder, RotaryScaling, _weights

SMALL = Config(vocab=37, layers=2, width=24, hidden=40, heads=4, kv_heads=1, head_dim=8)
PALM = replace(SMALL, block="parallel")
BIGCODE = replace(SMALL, activation="gelu_tanh", **plain_decoder.PLAIN)
GEMMA = replace(SMALL, kv_heads=2, norm_offset=1.0, embedding_scale=24**0.5, activation="gelu_tanh", head_dim=16)
CONFIGS = {
    "serial": replace(SMALL, kv_heads=4, tied=False),
    "parallel": PALM,
    "gemma": GEMMA,
    "bigcode": BIGCODE,
    "parallel-layer": replace(BIGCODE, block="parallel", kv_heads=2, activation="gelu", tied=False),
    "window": replace(SMALL, window=5, kv_heads=2, gated=False, activation="relu"),
    "linear-scaling": replace(SMALL, rotary_theta=500.0, rotary_scaling=RotaryScaling(4.0)),
}


def weights_of(config, seed=0, dtype="float32"):
    """Normal numbers of variance 1 / columns, with biases and norms that matter."""
    numbers = np.random.default_rng(seed)
    made = {}
    for name, shape in _weights.shapes(config).items():
        x = numbers.standard_normal(shape) / np.sqrt(shape[-1] if len(shape) > 1 else 4)
        made[name] = (x + (1 - config.norm_offset) * name.endswith("norm.weight")).astype(dtype)
    return made


def tokens_of(config, *shape):
    return np.random.default_rng(5).integers(0, config.vocab, shape)


def far(got, expected):
    """The largest difference, relative to the largest logit."""
    return np.abs(np.float64(got) - expected).max() / np.abs(expected).max()


@pytest.mark.parametrize("name", CONFIGS)
def test_logits_and_a_cache_filled_in_pieces_give_what_a_plain_decoder_gives(name):
    config = CONFIGS[name]
    weights, tokens = weights_of(config), tokens_of(config, 2, 13)
    expected = np.stack([plain_decoder.logits(config, weights, row) for row in tokens])
    decoder = Decoder(config, weights)
    assert decoder.logits(tokens).dtype == np.float32
    assert far(decoder.logits(tokens), expected) < 3e-6
    cache = decoder.cache(2, 16)
    sequences = [cache.new(), cache.new()]
    ends = [0, 7, 8, 8, 11, 13]
    pieces = [decoder(tokens[:, a:b], cache, sequences) for a, b in pairwise(ends)]
    assert far(np.concatenate(pieces, 1), expected) < 3e-6
    assert cache.lengths(sequences).tolist() == [13, 13]


def test_positions_beyond_the_first_tables():
    config = replace(SMALL, layers=1, width=8, heads=1, head_dim=4)
    weights, tokens = weights_of(config), tokens_of(config, 1, 600)
    expected = plain_decoder.logits(config, weights, tokens[0])
    assert far(Decoder(config, weights).logits(tokens)[0], expected) < 2e-5  # angles are float32: 600 * 2**-24 off


def test_last_only_members_of_a_batch_and_pages():
    config = CONFIGS["window"]
    decoder = Decoder(config, weights_of(config))
    tokens = tokens_of(config, 3, 9)
    alone = np.concatenate([decoder.logits(row[None])[:, -1] for row in tokens])
    for page in (None, 4):
        cache = decoder.cache(3, 12, page_size=page)
        sequences = [cache.new() for _ in tokens]
        decoder(tokens[:, :6], cache, sequences)
        last = decoder(tokens[[2, 0, 1], 6:], cache, [sequences[i] for i in (2, 0, 1)], last_only=True)
        assert far(last[[1, 2, 0]], alone) < 3e-6


def test_sequences_of_different_lengths_and_forks():
    decoder = Decoder(PALM, weights_of(PALM))
    tokens = tokens_of(PALM, 2, 8)
    cache = decoder.cache(2, 16, page_size=4)
    a = cache.new()
    decoder(tokens[:1, :6], cache, [a])
    b = cache.fork(a)
    cache.truncate(b, 3)
    both = decoder(tokens[:, 6:], cache, [b, a])
    assert far(both[0], decoder.logits(tokens[:1, [0, 1, 2, 6, 7]])[0, 3:]) < 3e-6
    expected = np.concatenate([tokens[:1, :6], tokens[1:, 6:]], 1)
    assert far(both[1], decoder.logits(expected)[0, 6:]) < 3e-6


@pytest.mark.parametrize("dtype, bound", [("int8", 0.02), ("float8_e4m3fn", 0.08)])
def test_quantized_caches_are_close(dtype, bound):
    decoder = Decoder(PALM, weights_of(PALM))
    tokens = tokens_of(PALM, 2, 12)
    cache = decoder.cache(2, 12, dtype=dtype)
    got = decoder(tokens, cache, [cache.new(), cache.new()])
    assert 0 < far(got, decoder.logits(tokens)) < bound


@pytest.mark.parametrize("name", ["gemma", "bigcode"])
@pytest.mark.parametrize("format, granularity", [("int8", "row"), ("e4m3fn", (1, 8))])
def test_quantized_weights_are_used_as_what_they_mean(name, format, granularity):
    config = CONFIGS[name]
    weights, tokens = weights_of(config), tokens_of(config, 1, 7)
    decoder = Decoder(config, weights).quantize(format, granularity)
    meant = {k: x.dequantize() if hasattr(x, "dequantize") else x for k, x in decoder.weights.items()}
    assert sum(hasattr(x, "dequantize") for x in decoder.weights.values()) == 1 + 4 * config.layers
    assert far(decoder.logits(tokens)[0], plain_decoder.logits(config, meant, tokens[0])) < 3e-6
    assert 2 * decoder.nbytes < sum(x.nbytes for x in weights.values())


@pytest.mark.parametrize(
    "name, dtype",
    [
        ("gemma", "float32"),
        ("bigcode", "float32"),
        ("parallel", "float32"),
        ("parallel", "bfloat16"),
        pytest.param("bigcode", "bfloat16", marks=pytest.mark.exhaustive),
        pytest.param("gemma", "float16", marks=pytest.mark.exhaustive),
    ],
)
def test_torch_gives_the_bits_that_numpy_gives(name, dtype):
    torch = pytest.importorskip("torch")
    config = CONFIGS[name]
    weights = Decoder(config, weights_of(config)).weights
    ours = Decoder(config, {k: x.astype(_weights.dtype_of(dtype)) for k, x in weights.items()})
    theirs = Decoder(config, {k: torch.from_numpy(x).to(getattr(torch, dtype)) for k, x in weights.items()})
    tokens = tokens_of(config, 2, 6)
    expected = ours.logits(tokens)
    got = theirs.logits(torch.from_numpy(tokens))
    assert got.dtype == torch.float32
    np.testing.assert_array_equal(got.numpy(), expected)
    results = []
    for decoder in (ours, theirs):
        cache = decoder.cache(2, 8)
        sequences = [cache.new(), cache.new()]
        decoder(tokens[:, :5], cache, sequences)
        results.append(np.asarray(decoder(tokens[:, 5:], cache, sequences, last_only=True)))
    np.testing.assert_array_equal(*results)
    assert far(results[0], expected[:, -1]) < {"float32": 3e-6, "float16": 1e-2, "bfloat16": 8e-2}[dtype]


def test_random_weights_are_those_of_their_streams_in_any_dtype():
    config = replace(SMALL, vocab=90_000, norm_offset=1.0, width=24)
    embedding = Decoder.random(config, seed=3).weights["embedding"].reshape(-1)
    start = _weights.PIECE
    numbers = np.random.Generator(np.random.SFC64(np.random.SeedSequence((3, 0, start))))
    normal = numbers.standard_normal(start, np.float32)
    np.testing.assert_allclose(embedding[start : 2 * start], normal / np.sqrt(24), rtol=1e-6)
    narrow = Decoder.random(config, seed=3, dtype="bfloat16").weights
    np.testing.assert_array_equal(narrow["embedding"].reshape(-1), embedding.astype(narrow["embedding"].dtype))
    assert not narrow["final_norm.weight"].any()


def test_nothing_at_all():
    decoder = Decoder(SMALL, weights_of(SMALL))
    cache = decoder.cache(1, 4)
    a = cache.new()
    assert decoder.logits(np.empty((0, 3), np.int64)).shape == (0, 3, 37)
    assert decoder(np.empty((1, 0), np.int64), cache, [a]).shape == (1, 0, 37)
    assert decoder(np.empty((0, 2), np.int64), cache, [], last_only=True).shape == (0, 37)
    assert cache.length(a) == 0
