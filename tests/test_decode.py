"""`decode` against softmax in float64 of what the cache gives back, and against `attention`; ragged, shared, spoilt."""

from __future__ import annotations

import doctest
import re

import ml_dtypes
import numpy as np
import pytest
from conftest import HAS_TORCH, same_bits
from kv_cache_model import build, of_kind

from pykernels.attention import KVCache, _cache, _decode, attention, decode

if HAS_TORCH:
    import torch

RNG = np.random.default_rng(11)
EPS = {"float32": 2.0**-23, "bfloat16": 2.0**-8, "float16": 2.0**-11}


def random(shape, dtype="float32"):
    return RNG.standard_normal(shape).astype(getattr(ml_dtypes, dtype, dtype))


def filled(lengths, heads, width, value_width, dtype="float32", source="float32", layout="paged"):
    """A cache with sequences of some lengths, appended in parts, and their numbers."""
    sizes = (60, 16) if layout == "paged" else (len(lengths), 200)
    cache = build("numpy", layout, *sizes, heads, width, value_dim=value_width, dtype=dtype)
    sequences = [cache.new() for _ in lengths]
    for part in range(3):  # pages of sequences lie between each other
        for sequence, length in zip(sequences, lengths, strict=True):
            size = length * (part + 1) // 3 - length * part // 3
            cache.append([sequence], *(random((1, heads, size, w), source) for w in (width, value_width)))
    return cache, sequences


def softmax(q, cache, sequence, scale=None, causal=True, window=(-1, -1), softcap=0, sinks=None, slopes=None):
    """Output and lse of q (Hq, T, D) in float64, all logits at once."""
    k, v = (np.repeat(np.float64(x), len(q) // len(x), axis=0) for x in cache.gather(sequence))
    s = np.float64(q) @ k.swapaxes(1, 2) * (q.shape[-1] ** -0.5 if scale is None else scale)
    s = softcap * np.tanh(s / softcap) if softcap else s
    ahead = np.arange(k.shape[1]) - (np.arange(q.shape[1]) + k.shape[1] - q.shape[1])[:, None]
    s = s - np.float64(np.zeros(len(q)) if slopes is None else slopes)[:, None, None] * np.abs(ahead)
    left, right = window[0], 0 if causal else window[1]
    s[:, ((left >= 0) & (ahead < -left)) | ((right >= 0) & (ahead > right))] = -np.inf
    sink = np.full(len(q), -np.inf) if sinks is None else np.float64(sinks)
    s = np.concatenate([s, np.broadcast_to(sink[:, None, None], (*s.shape[:2], 1))], axis=2)
    highest = s.max(-1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        lse = np.where(np.isneginf(highest), -np.inf, highest + np.log(np.exp(s - highest).sum(-1, keepdims=True)))
        weights = np.where(np.isneginf(lse), 0, np.exp(s - lse))
    return weights[..., :-1] @ v, lse[..., 0]


def check(cache, sequences, q, backend, tolerance, **options):
    given = {"alibi_slopes" if name == "slopes" else name: value for name, value in options.items()}
    out, lse = decode(q, cache, sequences, return_lse=True, backend=backend, **given)
    assert out.dtype == q.dtype and out.shape == (*q.shape[:3], cache.value_dim)
    assert lse.dtype == np.float32 and lse.shape == q.shape[:3]
    for n, sequence in enumerate(sequences):
        expected, denominators = softmax(q[n], cache, sequence, **options)
        np.testing.assert_allclose(np.float64(out[n]), expected, rtol=tolerance, atol=tolerance)
        np.testing.assert_allclose(lse[n], denominators, rtol=1e-5, atol=1e-5)


def per_head(heads):
    return np.linspace(-1, 3, heads, dtype=np.float32)


GRID = {  # storage, q, Hkv, G, T, D, Dv, options
    "multi-query": ("float32", "float32", 1, 16, 1, 128, 128, {}),
    "multi-query, 17": ("float32", "float32", 1, 17, 1, 64, 64, {"sinks": per_head(17)}),
    "multi-query, 48": ("bfloat16", "bfloat16", 1, 48, 1, 128, 128, {}),
    "grouped": ("float32", "float32", 2, 8, 2, 64, 64, {"window": (20, 0), "sinks": per_head(16)}),
    "multi-head": ("float32", "float32", 3, 1, 5, 40, 24, {"softcap": 1.5, "slopes": 0.1 * per_head(3)}),
    "of one number": ("float32", "float32", 2, 3, 2, 1, 3, {"scale": 0.7, "causal": False}),
    "both sides": (
        "float32",
        "float32",
        1,
        8,
        5,
        64,
        64,
        {"causal": False, "window": (2, 3), "slopes": 0.1 * per_head(8)},
    ),
    "bfloat16": ("bfloat16", "bfloat16", 2, 8, 1, 128, 128, {"softcap": 5.0}),
    "bfloat16, few": ("bfloat16", "bfloat16", 3, 1, 5, 40, 40, {"window": (33, -1), "sinks": per_head(3)}),
    "float16": ("float16", "float16", 2, 3, 2, 64, 64, {"slopes": 0.1 * per_head(6)}),
    "int8": ("int8", "float32", 1, 16, 2, 64, 40, {"sinks": per_head(16)}),
    "int8, bfloat16": ("int8", "bfloat16", 2, 3, 1, 128, 128, {"window": (70, 0)}),
    "e4m3fn": ("float8_e4m3fn", "float32", 2, 3, 5, 40, 64, {"softcap": 2.0}),
}


SLOW_TO_COMPILE = ("bfloat16, few", "int8, bfloat16")
CASES = [
    pytest.param(case, backend, marks=pytest.mark.exhaustive if case in SLOW_TO_COMPILE and backend == "cpu" else ())
    for case in GRID
    for backend in ("reference", "cpu")
]


@pytest.mark.parametrize(("case", "backend"), CASES)
def test_softmax_of_what_the_cache_keeps(case, backend):
    dtype, given, heads, group, tokens, width, value_width, options = GRID[case]
    layout = "contiguous" if case == "grouped" else "paged"
    cache, sequences = filled((5, 0, 1, 150, 64, 17), heads, width, value_width, dtype, given, layout)
    q = random((6, heads * group, tokens, width), given)
    check(cache, sequences, q, backend, max(8 * EPS[given], 4e-6), **options)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_attention_gives(dtype):
    cache, sequences = filled((9, 130), 2, 64, 64, dtype, dtype)
    q = random((2, 6, 3, 64), dtype)
    out, lse = decode(q, cache, sequences, return_lse=True)
    for n, sequence in enumerate(sequences):
        k, v = (x[None] for x in cache.gather(sequence))
        expected, denominators = attention(q[n : n + 1], k, v, causal="lower_right", return_lse=True)
        np.testing.assert_allclose(
            np.float32(out[n]), np.float32(expected[0]), atol=4 * EPS[dtype], rtol=4 * EPS[dtype]
        )
        np.testing.assert_allclose(lse[n], denominators[0], atol=1e-5)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_a_batch_gives_the_bits_of_its_members(backend):
    cache, sequences = filled((190, 3, 0, 77), 2, 40, 40)
    q = random((5, 8, 2, 40))
    order = [*sequences[::-1], sequences[0]]  # a sequence may be there twice
    together = decode(q, cache, order, return_lse=True, backend=backend)
    for n, sequence in enumerate(order):
        alone = decode(q[n : n + 1], cache, [sequence], return_lse=True, backend=backend)
        for one, all_of_them in zip(alone, together, strict=True):
            same_bits(np.ascontiguousarray(one[0]), np.ascontiguousarray(all_of_them[n]))


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_nan_stays_in_its_sequence_and_behind_its_end(dtype, backend):
    cache, sequences = filled((30, 20, 10), 2, 64, 64, dtype)
    q = random((3, 4, 1, 64))
    expected = decode(q, cache, sequences, backend=backend)
    spoilt = np.full((1, 2, 5, 64), np.nan, np.float32)
    cache.append([sequences[0]], spoilt, spoilt)
    for sequence in sequences[1:]:  # and behind the ends of the others
        length = cache.length(sequence)
        cache.append([sequence], spoilt, spoilt)
        cache.truncate(sequence, length)
    got = decode(q, cache, sequences, backend=backend)
    assert np.isnan(got[0]).all()
    same_bits(got[1:], expected[1:])
    before_them = decode(q[:1], cache, sequences[:1], window=(0, -1), causal=False, scale=0.0, backend=backend)
    assert np.isnan(before_them).all()


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_queries_before_the_first_token_read_nothing(backend):
    cache, sequences = filled((3, 0), 1, 8, 8)
    q = random((2, 2, 5, 8))
    out, lse = decode(q, cache, sequences, return_lse=True, backend=backend)
    assert (out[0, :, :2] == 0).all() and np.isneginf(lse[0, :, :2]).all()
    assert (out[1] == 0).all() and np.isneginf(lse[1]).all()
    last = decode(q[:1, :, 2:], cache, sequences[:1], backend=backend)
    np.testing.assert_allclose(out[:1, :, 2:], last, rtol=1e-6, atol=1e-6)
    _, lse = decode(q, cache, sequences, return_lse=True, sinks=np.float32([1, 2]), backend=backend)
    assert (lse[1] == np.float32([[1], [2]])).all()


def test_out_strides_and_empty_batches():
    cache, sequences = filled((12, 40), 1, 16, 8)
    q = random((2, 3, 4, 16))
    expected = decode(q, cache, sequences)
    by_token = np.ascontiguousarray(q.transpose(0, 2, 1, 3)).transpose(0, 2, 1, 3)
    assert decode(by_token, cache, sequences).strides[1] < expected.strides[1]
    for out in (np.full((2, 3, 4, 8), np.nan, np.float32), np.full((8, 4, 3, 2), np.nan, np.float32).T[:, :, :, ::-1]):
        for queries in (q, by_token, np.asfortranarray(q), np.repeat(q, 2, axis=3)[..., ::2]):
            assert decode(queries, cache, np.array(sequences), out=out) is out
            np.testing.assert_array_equal(out, expected)
    assert decode(q[:0], cache, []).shape == (0, 3, 4, 8)
    assert decode(q[:, :, :0], cache, sequences).shape == (2, 3, 0, 8)
    assert decode(q[:, :0], cache, sequences, return_lse=True)[1].shape == (2, 0, 4)


@pytest.mark.skipif(not HAS_TORCH, reason="torch is not installed")
@pytest.mark.parametrize("kind", ["torch", "gpu"])
@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_tensors_give_what_arrays_give(dtype, kind):
    k, v, q = (random((2, heads, 9, 16)) for heads in (2, 2, 4))
    results = []
    for each in ("numpy", kind):
        cache = build(each, "paged", 20, 4, 2, 16, dtype=dtype)
        arrays = [of_kind(each, x) for x in (k, v, q)]
        if dtype == "bfloat16":
            arrays = [x.astype(ml_dtypes.bfloat16) if each == "numpy" else x.bfloat16() for x in arrays]
        sequences = [cache.new(), cache.new()]
        for step in (slice(0, 5), slice(5, 9)):
            cache.append(sequences, *(x[:, :, step] for x in arrays[:2]))
            results.append(decode(arrays[2], cache, sequences, sinks=of_kind(each, per_head(4)), return_lse=True))
    for mine, theirs in zip(results[2:], results[:2], strict=True):
        assert all(isinstance(x, torch.Tensor) for x in mine)
        np.testing.assert_array_equal(mine[0].float().numpy(), np.float32(theirs[0]))
        np.testing.assert_array_equal(mine[1].numpy(), theirs[1])


@pytest.mark.skipif(not HAS_TORCH, reason="torch is not installed")
def test_torch_compile_leaves_the_cache_alone():
    cache = KVCache.paged(9, 4, 2, 8, device="cpu")
    sequences = [cache.new(), cache.new()]

    def step(q, k):
        cache.append(sequences, k + 1, k)
        return decode(q * 2, cache, sequences, backend="reference") + 1

    q, k = torch.randn(2, 4, 1, 8), torch.randn(2, 2, 1, 8)
    torch._dynamo.reset()
    compiled = torch.compile(step, backend="aot_eager")
    results = [compiled(q, k), compiled(q, k)]
    for sequence in sequences:
        cache.truncate(sequence, 0)
    assert all(torch.equal(result, step(q, k)) for result in results)
    with pytest.raises(torch._dynamo.exc.Unsupported):
        torch.compile(lambda q: decode(q, cache, sequences), backend="aot_eager", fullgraph=True)(q)


Q = np.ones((2, 4, 1, 8), np.float32)
BAD = {
    "cache": (TypeError, "cache is a list: expected a KVCache", lambda c, s: decode(Q, [c], s)),
    "q axes": (ValueError, "q has shape (4, 1, 8): expected (n, Hq, T, 8)", lambda c, s: decode(Q[0], c, s)),
    "q width": (ValueError, "q has shape (2, 4, 1, 7)", lambda c, s: decode(Q[..., :7], c, s)),
    "heads": (ValueError, "Hq a multiple of 2", lambda c, s: decode(Q[:, :3], c, s)),
    "q dtype": (TypeError, "q has dtype float16: expected one of float32", lambda c, s: decode(Q.astype("f2"), c, s)),
    "count": (ValueError, "sequences has shape (1,): expected (2,), as q has 2", lambda c, s: decode(Q, c, s[:1])),
    "unknown": (ValueError, "sequence 7 is not in the cache", lambda c, s: decode(Q, c, [s[0], 7])),
    "floats": (TypeError, "sequences has dtype float64", lambda c, s: decode(Q, c, [0.0, 1.0])),
    "causal": (ValueError, "causal='left'", lambda c, s: decode(Q, c, s, causal="left")),
    "window": (ValueError, "window=(-2, 0)", lambda c, s: decode(Q, c, s, window=(-2, 0))),
    "softcap": (ValueError, "softcap=0", lambda c, s: decode(Q, c, s, softcap=0.0)),
    "sinks": (ValueError, "sinks has shape (2,): expected (4,)", lambda c, s: decode(Q, c, s, sinks=Q[:, 0, 0, 0])),
    "slopes": (TypeError, "alibi_slopes has dtype int64", lambda c, s: decode(Q, c, s, alibi_slopes=np.arange(4))),
    "out shape": (ValueError, "out has shape (2, 4, 1, 7)", lambda c, s: decode(Q, c, s, out=Q[..., :7].copy())),
    "out dtype": (TypeError, "out has dtype float64", lambda c, s: decode(Q, c, s, out=np.zeros(Q.shape))),
    "out of q": (ValueError, "out shares memory", lambda c, s: decode(Q, c, s, out=Q)),
    "backend": (ValueError, "backend='tpu'", lambda c, s: decode(Q, c, s, backend="tpu")),
    "gpu": (NotImplementedError, "backend='gpu'", lambda c, s: decode(Q, c, s, backend="gpu")),
}
if HAS_TORCH:
    T = torch.ones(2, 4, 1, 8)
    BAD["kind"] = (TypeError, "q is a Tensor: expected a ndarray, as the cache", lambda c, s: decode(T, c, s))

    def gradient(c, s):
        other = KVCache.paged(1, 1, 2, 8, device="cpu")
        decode(T.clone().requires_grad_(), other, [other.new(), other.new()])

    BAD["gradient"] = (NotImplementedError, "q requires a gradient", gradient)


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named(case):
    error, message, call = BAD[case]
    cache, sequences = filled((3, 2), 2, 8, 8)
    with pytest.raises(error, match=re.escape(message)):
        call(cache, sequences)
    assert (Q == 1).all()
    cache.new()  # the lock is free


@pytest.mark.parametrize("module", [_cache, _decode])
def test_doctests(module):
    assert doctest.testmod(module).failed == 0
