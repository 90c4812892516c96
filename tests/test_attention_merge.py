"""Merging attention to parts of the keys: equal to the whole, in any order, and what -Inf, NaN and gradients do."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from conftest import same_bits
from hypothesis import given, settings
from hypothesis import strategies as st

from pykernels.attention import attention, attention_varlen, merge
from pykernels.kernels.attention import cases
from pykernels.kernels.attention.cases import Shape

SHAPE = Shape(1, 4, 2, 3, 40, 16, 16)


@settings(max_examples=20, deadline=None)
@given(
    order=st.permutations(range(SHAPE.keys)), cuts=st.lists(st.integers(0, SHAPE.keys), max_size=4), right=st.booleans()
)
def test_any_split_of_permuted_keys_merges_to_the_whole(order, cuts, right):
    q, k, v = cases.operands(SHAPE, "float32")
    out, lse = attention(q, k, v, return_lse=True)
    k, v, ends = k[:, :, order], v[:, :, order], [0, *sorted(cuts), SHAPE.keys]
    parts = [attention(q, k[:, :, a:b], v[:, :, a:b], return_lse=True) for a, b in itertools.pairwise(ends)]
    while len(parts) > 1:
        pair = parts[-2:] if right else parts[:2]
        merged = [merge(*pair[0], *pair[1])]
        parts = parts[:-2] + merged if right else merged + parts[2:]
    np.testing.assert_allclose(parts[0][0], out, rtol=0, atol=2e-6)
    np.testing.assert_allclose(parts[0][1], lse, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "float64"])
def test_a_part_without_keys_leaves_the_bits_of_the_other(dtype):
    q, k, v = cases.operands(SHAPE, dtype)
    out, lse = attention(q, k, v, return_lse=True)
    empty = np.full_like(lse, -np.inf)
    for garbage in (np.zeros_like(out), np.full_like(out, np.nan)):
        for merged in (merge(out, lse, garbage, empty), merge(garbage, empty, out, lse)):
            same_bits(merged[0], out)
            same_bits(merged[1], lse)
        neither, log = merge(garbage, empty, garbage, empty)
        assert not neither.any() and np.isneginf(log).all()


def test_large_logarithms_cancel_exactly_and_nan_stays():
    out = np.float32([[[[1.0]], [[3.0]], [[5.0]]]])
    a, b = np.float32([[[1e4], [-1e4], [np.nan]]]), np.float32([[[1e4], [-2e4], [0]]])
    merged, lse = merge(out, a, out + 1, b)
    np.testing.assert_array_equal(merged[0, :, 0, 0], np.float32([1.5, 3, np.nan]))
    np.testing.assert_array_equal(lse[0, :, 0], np.float32([1e4 + np.log(2), -1e4, np.nan]))


def test_ragged_batches_and_sinks_in_one_part():
    rng = np.random.default_rng(0)
    q, k, v = (rng.standard_normal((n, heads, 8), np.float32) for n, heads in ((4, 2), (9, 2), (9, 2)))
    sinks = np.float32([0.5, 2])
    whole = attention_varlen(q, k, v, [0, 4], [0, 9], sinks=sinks, return_lse=True)
    a = attention_varlen(q, k[:5], v[:5], [0, 4], [0, 5], sinks=sinks, return_lse=True)
    b = attention_varlen(q, k[5:], v[5:], [0, 4], [0, 4], return_lse=True)
    for got, expected in zip(merge(*a, *b), whole, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_gradients_and_torch():
    torch = pytest.importorskip("torch")
    generator = torch.Generator().manual_seed(0)
    outs = [torch.randn(1, 2, 3, 4, dtype=torch.float64, generator=generator, requires_grad=True) for _ in "ab"]
    logs = [torch.randn(1, 2, 3, dtype=torch.float64, generator=generator, requires_grad=True) for _ in "ab"]
    arguments = outs[0], logs[0], outs[1], logs[1]
    assert torch.autograd.gradcheck(merge, arguments)
    for got, expected in zip(merge(*arguments), merge(*(x.detach().numpy() for x in arguments)), strict=True):
        np.testing.assert_allclose(got.detach().numpy(), expected, rtol=1e-14)
    lost = [torch.full_like(logs[0], -torch.inf).requires_grad_() for _ in "ab"]
    spoiled = torch.full_like(outs[0], torch.nan).requires_grad_()
    for pair in ((spoiled, lost[0], *arguments[2:]), (spoiled, lost[0], spoiled, lost[1])):
        out, lse = merge(*pair)
        (out.sum() + lse.exp().sum()).backward()
        assert not torch.isnan(out).any() and not any(torch.isnan(x.grad).any() for x in pair)
    half, log = outs[0].detach().bfloat16(), logs[0].detach().float()
    merged, lse = merge(half, log, half, log)
    assert merged.dtype == torch.bfloat16 and lse.dtype == torch.float32 and torch.equal(merged, half)
    compiled = torch.compile(merge, fullgraph=True, backend="aot_eager")
    for got, expected in zip(compiled(*arguments), merge(*arguments), strict=True):
        torch.testing.assert_close(got, expected)
