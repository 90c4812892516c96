"""What configurations, decoders and their calls refuse, and that nothing is written then."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pykernels import quant
from pykernels.attention import KVCache
from pykernels.inference import Config, Decoder, RotaryScaling

SMALL = Config(vocab=11, layers=2, width=8, hidden=16, heads=2, kv_heads=1, head_dim=4, max_length=12)


@pytest.mark.parametrize(
    "fields, error, named",
    [
        ({"width": 0}, ValueError, "width=0"),
        ({"layers": 1.5}, TypeError, "layers=1.5"),
        ({"heads": 3, "kv_heads": 2}, ValueError, "kv_heads=2: expected a divisor of heads=3"),
        ({"block": "both"}, ValueError, "block='both'"),
        ({"activation": "mish"}, ValueError, "activation='mish'"),
        ({"norm": "batch"}, ValueError, "norm='batch'"),
        ({"norm_eps": -1.0}, ValueError, "norm_eps=-1.0"),
        ({"norm_offset": float("nan")}, ValueError, "norm_offset=nan"),
        ({"gated": 1}, TypeError, "gated=1"),
        ({"tied": None}, TypeError, "tied=None"),
        ({"rotary_theta": 0.0}, ValueError, "rotary_theta=0"),
        ({"rotary_theta": None, "rotary_scaling": RotaryScaling(2.0)}, ValueError, "rotary_scaling"),
        ({"rotary_scaling": 2.0}, TypeError, "rotary_scaling=2.0"),
        ({"head_dim": 5}, ValueError, "head_dim=5"),
        ({"learned_positions": 11}, ValueError, "max_length=12: expected at most learned_positions=11"),
        ({"window": 0}, ValueError, "window=0"),
        ({"max_length": 0}, ValueError, "max_length=0"),
        ({"embedding_scale": "8"}, TypeError, "embedding_scale='8'"),
    ],
)
def test_a_configuration_names_the_field(fields, error, named):
    with pytest.raises(error, match=named):
        replace(SMALL, **fields)


@pytest.mark.parametrize(
    "arguments, named",
    [((0.5,), "factor=0.5"), ((2.0, 1.0), "expected all three, or none"), ((2.0, 4.0, 1.0, 8), "low < high")],
)
def test_a_rotary_scaling_names_the_field(arguments, named):
    with pytest.raises(ValueError, match=named):
        RotaryScaling(*arguments)


def test_weights_are_all_named():
    weights = Decoder.random(SMALL).weights
    faulty = {**weights, "tail": weights["embedding"], "embedding": weights["embedding"][1:]}
    del faulty["final_norm.weight"], faulty["layers.1.up.weight"]
    with pytest.raises(ValueError) as error:
        Decoder(SMALL, faulty)
    assert str(error.value) == (
        "weights do not fit the configuration: missing: layers.1.up.weight, final_norm.weight; extra: tail; "
        "misshapen: embedding (10, 8) instead of (11, 8)"
    )


@pytest.mark.parametrize(
    "name, change, named",
    [
        ("layers.0.qkv.weight", np.float64, "float64: expected float32, as the norms have"),
        ("final_norm.weight", np.int64, "one of float32, bfloat16, float16"),
        ("final_norm.weight", lambda x: quant.quantize(x[None], "int8"), "final_norm.weight"),
        ("embedding", lambda x: quant.quantize(x, "int8", granularity="column"), "'column': expected 'row'"),
    ],
)
def test_weights_of_other_kinds(name, change, named):
    weights = Decoder.random(SMALL).weights
    with pytest.raises((TypeError, ValueError), match=named):
        Decoder(SMALL, weights | {name: change(weights[name])})


def test_mixed_kinds_of_arrays():
    torch = pytest.importorskip("torch")
    weights = Decoder.random(SMALL).weights
    with pytest.raises(TypeError, match=r"embedding'\] is another kind of array"):
        Decoder(SMALL, weights | {"embedding": torch.zeros(11, 8)})


@pytest.mark.parametrize(
    "tokens, options, error, named",
    [
        ([[0, 11]], {}, ValueError, "tokens has 11: expected integers from 0 to 10"),
        ([[-1, 3]], {}, ValueError, "tokens has -1"),
        ([[0.0]], {}, TypeError, "tokens has dtype float64"),
        ([[True]], {}, TypeError, "tokens has dtype bool"),
        ([1, 2], {}, ValueError, r"tokens has shape \(2,\)"),
        ([[1], [2]], {}, ValueError, r"sequences has shape \(1,\): expected \(2,\)"),
        (np.empty((1, 0), int), {"last_only": True}, ValueError, "at least one token"),
        ([[1] * 10], {}, ValueError, "a sequence of 13: expected at most max_length=12"),
        ([[1] * 6], {}, MemoryError, "8"),
    ],
)
def test_a_refused_call_leaves_the_cache_alone(tokens, options, error, named):
    decoder = Decoder.random(SMALL)
    cache = decoder.cache(1, 8)
    a = cache.new()
    decoder([[1, 2, 3]], cache, [a])
    before = [np.copy(x) for x in cache.gather(a, layer=1)]
    with pytest.raises(error, match=named):
        decoder(tokens, cache, [a], **options)
    for x, kept in zip(cache.gather(a, layer=1), before, strict=True):
        np.testing.assert_array_equal(x, kept)


def test_a_call_that_fails_in_the_middle_takes_its_tokens_back(monkeypatch):
    decoder = Decoder.random(SMALL)
    cache = decoder.cache(1, 8)
    a = cache.new()
    decoder([[1, 2]], cache, [a])

    def stop(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(decoder._blocks[1], "down", stop)
    with pytest.raises(KeyboardInterrupt):
        decoder([[3]], cache, [a])
    assert cache.length(a) == 2


@pytest.mark.parametrize(
    "cache, error, named",
    [
        (KVCache.contiguous(1, 8, 1, 4), ValueError, "cache has layers=1, kv_heads=1"),
        (KVCache.contiguous(1, 8, 2, 4, layers=2), ValueError, "expected layers=2, kv_heads=1, head_dim=4"),
        (KVCache.contiguous(1, 8, 1, 4, layers=2, dtype="float16"), TypeError, "cache has dtype float16"),
        (None, TypeError, "cache is a NoneType"),
    ],
)
def test_caches_of_another_shape(cache, error, named):
    with pytest.raises(error, match=named):
        Decoder.random(SMALL)([[1]], cache, [0])
