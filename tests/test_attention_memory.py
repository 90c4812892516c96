"""Attention: what is read and written, in which strides; empty and fully masked rows; NaN; overhead."""

from __future__ import annotations

import timeit

import ml_dtypes
import numpy as np
import pytest
from conftest import same_bits

from pykernels.attention import attention, attention_varlen
from pykernels.kernels.attention import cases
from pykernels.kernels.attention.cases import Shape

SHAPES = (Shape(2, 8, 1, 1, 70, 64, 64), Shape(2, 4, 2, 37, 70, 40, 24))
DTYPES = ["float32", "bfloat16", "float16", "float64"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_strides_change_nothing(shape, dtype):
    q, k, v = cases.operands(shape, dtype)
    whole = attention(q, k, v, causal=True)
    for view in (
        lambda x: np.ascontiguousarray(x.transpose(0, 2, 1, 3)).transpose(0, 2, 1, 3),
        lambda x: np.ascontiguousarray(x.transpose(3, 0, 1, 2)).transpose(1, 2, 3, 0),
        lambda x: np.ascontiguousarray(x[:, :, ::-1, ::-1])[:, :, ::-1, ::-1],
        lambda x: np.ascontiguousarray(x[::-1, ::-1])[::-1, ::-1],
        lambda x: np.repeat(x, 3, 2)[:, :, ::3],
        lambda x: np.concatenate([x, x], 3)[..., : x.shape[3]],
    ):
        same_bits(np.ascontiguousarray(attention(*map(view, (q, k, v)), causal=True)), whole)
    swapped = attention(
        *(x.astype(x.dtype.newbyteorder(">")) if dtype != "bfloat16" else x for x in (q, k, v)), causal=True
    )
    same_bits(swapped, whole)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_out_of_any_strides_is_filled_and_nothing_else(shape, dtype):
    q, k, v = cases.operands(shape, dtype)
    whole, lse = attention(q, k, v, return_lse=True)
    b, h, s, d = whole.shape
    for size, view in (
        ((b, h, s, d), lambda x: x),
        ((b, s, h, d), lambda x: x.transpose(0, 2, 1, 3)),
        ((b, h, s, 2 * d), lambda x: x[..., :d]),
        ((b, h, s, 2 * d), lambda x: x[..., ::2]),
        ((b, h, 3 * s, d), lambda x: x[:, ::-1, 1::3, ::-1]),
    ):
        memory = np.full(size, np.nan, whole.dtype)
        out = view(memory)
        got, again = attention(q, k, v, out=out, return_lse=True)
        assert got is out
        same_bits(np.ascontiguousarray(out), whole)
        same_bits(again, lse)
        assert np.count_nonzero(np.isnan(memory.astype(np.float32))) == memory.size - whole.size


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_what_is_not_allowed_has_no_influence(shape, dtype):
    q, k, v = cases.operands(shape, dtype)
    rng = np.random.default_rng(5)
    mask = rng.random((2, 1, 1, shape.keys)) < 0.5
    mask[:, :, :, 0] = True
    lengths = np.array([shape.keys, 9])
    bias = rng.standard_normal((1, shape.keys)).astype(np.float32)
    for options, hidden in (
        ({"mask": mask}, ~mask[:, 0, 0]),
        ({"mask": mask, "bias": np.where(mask, bias, np.nan)}, ~mask[:, 0, 0]),
        ({"kv_lengths": lengths}, np.arange(shape.keys) >= lengths[:, None]),
        ({"window": (20, 1), "causal": "upper_left"}, np.arange(shape.keys) >= shape.queries + np.zeros((2, 1), int)),
    ):
        poisoned = [
            np.where(hidden[:, None, :, None], poison, x.astype(np.float64)).astype(x.dtype)
            for x, poison in ((k, np.nan), (v, np.inf))
        ]
        clean = [np.where(hidden[:, None, :, None], 0, x.astype(np.float64)).astype(x.dtype) for x in (k, v)]
        got = attention(q, *poisoned, **options, return_lse=True)
        expected = attention(q, *clean, **{**options, **({"bias": bias} if "bias" in options else {})}, return_lse=True)
        for a, b in zip(got, expected, strict=True):
            tolerance = 8 * float(ml_dtypes.finfo(b.dtype).eps)  # poison may be met in another order of sums
            np.testing.assert_allclose(a.astype(np.float64), b.astype(np.float64), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_stays_in_its_query_and_its_sequence(dtype):
    q, k, v = cases.operands(Shape(2, 4, 2, 37, 70, 40, 24), dtype)
    clean, log = attention(q, k, v, causal=True, return_lse=True)
    k[0, 1, 50] = np.nan  # of heads 2 and 3 in the first sequence, where queries 17 on read it
    q[1, 3, 5, 7] = np.nan
    out, lse = attention(q, k, v, causal=True, return_lse=True)
    spoiled = np.zeros(out.shape[:3], bool)
    spoiled[0, 2:, 17:] = spoiled[1, 3, 5] = True
    assert np.isnan(out.astype(np.float64))[spoiled].all() and np.isnan(lse[spoiled]).all()
    same_bits(out[~spoiled], clean[~spoiled])
    same_bits(lse[~spoiled], log[~spoiled])


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_without_keys_and_empty_arrays(dtype):
    q, k, v = cases.operands(Shape(2, 4, 2, 9, 5, 16, 8), dtype)
    sinks = np.arange(4, dtype=np.float32) - 1
    out, lse = attention(q, k, v, causal=True, return_lse=True)  # the first four queries stand before all keys
    assert not out[:, :, :4].any() and np.isneginf(lse[:, :, :4]).all() and np.isfinite(lse[:, :, 4:]).all()
    out, lse = attention(q, k, v, mask=np.zeros(5, bool), sinks=sinks, return_lse=True)
    assert not out.any() and (lse == sinks[:, None]).all()
    for given, expected in ((None, -np.inf), (sinks, sinks[:, None])):
        out, lse = attention(q, k[:, :, :0], v[:, :, :0], sinks=given, return_lse=True)
        assert out.shape == (2, 4, 9, 8) and not out.any() and (lse == expected).all()
        out, lse = attention(q, k, v, kv_lengths=[0, 0], sinks=given, return_lse=True)
        assert not out.any() and (lse == expected).all()
    assert attention(q[:, :, :0], k, v).shape == (2, 4, 0, 8)
    assert attention(q[:0], k[:0], v[:0]).shape == (0, 4, 9, 8)
    out, lse = attention(q[:0], k[:0], v[:0], kv_lengths=np.zeros(0, int), mask=np.ones(5, bool), return_lse=True)
    assert lse.shape == (0, 4, 9)
    flat = [x.transpose(0, 2, 1, 3)[0] for x in (q, k, v)]
    assert attention_varlen(flat[0][:0], flat[1], flat[2], [0, 0], [0, 5]).shape == (0, 4, 8)
    assert attention_varlen(flat[0][:0], flat[1][:0], flat[2][:0], [0], [0]).shape == (0, 4, 8)
    assert not attention_varlen(flat[0], flat[1][:0], flat[2][:0], [0, 9], [0, 0]).any()


def test_call_overhead_is_small():
    """A guard against regressions by a factor, of the layer in front of the kernels alone."""
    from pykernels.attention import _attention

    q, k = np.zeros((1, 4, 1, 64), np.float32), np.zeros((1, 1, 32, 64), np.float32)
    launcher = _attention.launcher
    _attention.launcher = lambda *names: lambda *arguments: None
    try:
        seconds = min(timeit.repeat(lambda: attention(q, k, k, causal=True), number=100, repeat=20)) / 100
    finally:
        _attention.launcher = launcher
    assert seconds < 60e-6
