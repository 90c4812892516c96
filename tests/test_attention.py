"""Attention of batches and ragged batches against the plain formula, torch's own, and what must not change it."""

from __future__ import annotations

import numba
import numpy as np
import pytest

pytest.importorskip("torch")
import torch
from attention_oracle import pairwise, plain, tensor, wide
from conftest import same_bits

from pykernels.attention import attention, attention_varlen
from pykernels.kernels.attention import cases
from pykernels.kernels.attention.cases import Shape

FEATURES = (
    *cases.FEATURES,
    {"window": (-1, 4), "causal": "upper_left", "alibi_slopes": True},
    {"window": (0, -1), "mask": (-1,), "softcap": 30.0},
    {"bias": (-2,), "sinks": True, "causal": True, "softcap": 5.0, "scale": 1.5},
)
GRID = {
    "features": FEATURES,
    "dtype": ("float32", "bfloat16", "float16", "float64"),
    "queries": (1, 7, 63, 129),
    "keys": (1, 7, 63, 129, 1000),
    "dim": (1, 40, 64, 96, 128, 192, 256),
    "group": (1, 3, 8, 16),
    "kv_heads": (1, 2),
    "value_dim": (None, 64, 33),
    "tokens_first": (False, True),
}
CASES = pairwise(GRID)
MORE = pairwise({**GRID, "queries": (1, 2, 9, 64, 1000), "keys": (2, 64, 65, 1000), "dim": (2, 3, 8, 33, 80, 160, 576)})


def named(case):
    return "-".join(str(x if name != "features" else cases.named(x)) for name, x in case.items())


def laid_out(x, tokens_first):
    """`x` (B, H, S, D) as it is, or as a view of (B, S, H, D)."""
    return np.ascontiguousarray(x.transpose(0, 2, 1, 3)).transpose(0, 2, 1, 3) if tokens_first else x


def compare(case, backend=None):
    dtype, features = case["dtype"], case["features"]
    heads = case["group"] * case["kv_heads"]
    value_dim = case["value_dim"] or case["dim"]
    shape = Shape(2, heads, case["kv_heads"], case["queries"], case["keys"], case["dim"], value_dim)
    operands = [laid_out(x, case["tokens_first"]) for x in cases.operands(shape, dtype)]
    given = cases.arguments(shape, features)
    out, lse = attention(*operands, **given, return_lse=True, backend=backend)
    logs = np.float64 if dtype == "float64" else np.float32
    assert (out.dtype, lse.dtype) == (operands[0].dtype, logs)
    assert (out.shape, lse.shape) == ((2, heads, shape.queries, value_dim), (2, heads, shape.queries))
    arrays = {name: wide(x) if isinstance(x, np.ndarray) else x for name, x in given.items()}
    expected, logarithms = (x.numpy() for x in plain(*map(wide, operands), **arrays))
    size = max(1, np.abs(expected).max())
    error = np.abs(out.astype(np.float64) - expected).max()
    if dtype in ("float32", "float64"):
        assert error <= 8 * np.finfo(dtype).eps * np.sqrt(shape.dim) * size
    else:
        theirs = plain(*map(tensor, operands), **arrays)[0].double().numpy()
        rounding = float(torch.finfo(getattr(torch, dtype)).eps) / 2 * size
        assert error <= 2 * np.abs(theirs - expected).max() + rounding
    finite = np.isfinite(logarithms)
    np.testing.assert_array_equal(lse[~finite], logarithms[~finite])
    largest = max(1, np.abs(logarithms[finite]).max(initial=0))
    assert (
        np.abs(lse[finite] - logarithms[finite]).max(initial=0) <= 8 * np.finfo(logs).eps * np.sqrt(shape.dim) * largest
    )


@pytest.mark.parametrize("case", CASES, ids=named)
def test_every_two_choices_against_the_plain_formula(case):
    compare(case)


@pytest.mark.exhaustive
@pytest.mark.parametrize("case", MORE, ids=named)
def test_larger_and_other_sizes_against_the_plain_formula(case):
    compare(case)


def test_reference_against_the_plain_formula():
    for case in CASES[::8]:
        compare({**case, "queries": min(case["queries"], 7)}, backend="reference")


@pytest.mark.parametrize("shape", [Shape(2, 6, 2, 33, 70, 40, 40), Shape(1, 8, 1, 70, 33, 64, 64)])
def test_against_scaled_dot_product_attention(shape):
    q, k, v = cases.operands(shape, "float64")
    bias, mask = np.random.default_rng(3).standard_normal((shape.heads, shape.queries, shape.keys)), None
    mask = bias > -1.5
    sdpa = torch.nn.functional.scaled_dot_product_attention
    operands = [tensor(x) for x in (q, k, v)]
    for ours, theirs in (
        ({}, {}),
        ({"causal": "upper_left"}, {"is_causal": True}),
        ({"scale": 0.7, "bias": bias}, {"scale": 0.7, "attn_mask": tensor(bias)}),
        ({"mask": mask}, {"attn_mask": tensor(mask)}),
    ):
        expected = sdpa(*operands, **theirs, enable_gqa=True).numpy()
        np.testing.assert_allclose(attention(q, k, v, **ours), expected, rtol=1e-12, atol=1e-13)


def test_against_flex_attention():
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    shape = Shape(2, 6, 2, 40, 64, 32, 32)
    q, k, v = cases.operands(shape, "float64")
    slopes = np.linspace(0.1, 0.6, 6)
    ahead, table = shape.keys - shape.queries, torch.from_numpy(slopes)

    def score(s, b, h, i, j):
        return 3.0 * torch.tanh(s / 3.0) - table[h] * (j - (i + ahead)).abs()

    def allowed(b, h, i, j):
        return (j <= i + ahead) & (j >= i + ahead - 9)

    blocks = create_block_mask(allowed, None, None, shape.queries, shape.keys, device="cpu")
    with pytest.warns(UserWarning):  # it is meant to be compiled
        expected = flex_attention(*map(tensor, (q, k, v)), score_mod=score, block_mask=blocks, enable_gqa=True)
    out = attention(q, k, v, causal=True, window=(9, 0), softcap=3.0, alibi_slopes=slopes)
    np.testing.assert_allclose(out, expected.numpy(), rtol=1e-12, atol=1e-13)


SHAPES = (Shape(3, 8, 1, 1, 300, 64, 64), Shape(3, 4, 2, 70, 130, 40, 40))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_batch_has_the_bits_of_its_members_whatever_the_threads(shape, dtype):
    q, k, v = cases.operands(shape, dtype)
    lengths = np.array([shape.keys, 65, 0])

    def call(q, k, v, lengths):
        return attention(q, k, v, causal=True, kv_lengths=lengths, return_lse=True)

    whole = call(q, k, v, lengths)
    members = [call(q[b : b + 1], k[b : b + 1], v[b : b + 1], lengths[b : b + 1]) for b in range(3)]
    threads = numba.get_num_threads()
    try:
        numba.set_num_threads(1)
        alone = call(q, k, v, lengths)
    finally:
        numba.set_num_threads(threads)
    for i in range(2):
        same_bits(whole[i], np.concatenate([member[i] for member in members]))
        same_bits(whole[i], alone[i])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_ragged_batches_have_the_bits_of_their_sequences(dtype):
    queries, keys = (0, 0, 1, 1, 8, 70), (0, 4, 9, 20, 20, 150)
    rng = np.random.default_rng(0)
    q, k, v = (
        rng.standard_normal(size, np.float32).astype(cases.DTYPES[dtype])
        for size in ((70, 4, 64), (150, 2, 64), (150, 2, 32))
    )
    sinks = rng.standard_normal(4).astype(np.float32)
    options = {"causal": True, "window": (30, 0), "sinks": sinks}
    out, lse = attention_varlen(q, k, v, queries, keys, **options, return_lse=True)
    counts = np.array([2, 3, 11, 0, 100])
    cut = attention_varlen(q, k, v, queries, keys, **options, kv_lengths=counts)
    assert (out.shape, lse.shape, out.flags.c_contiguous) == ((70, 4, 32), (4, 70), True)
    for n in range(5):
        mine, theirs = slice(*queries[n : n + 2]), slice(*keys[n : n + 2])
        one = [x.transpose(1, 0, 2)[None] for x in (q[mine], k[theirs], v[theirs])]
        alone, log = attention(*one, **options, return_lse=True)
        same_bits(out[mine], alone[0].transpose(1, 0, 2))
        same_bits(lse[:, mine], log[0])
        same_bits(cut[mine], attention(*one, **options, kv_lengths=counts[n : n + 1])[0].transpose(1, 0, 2))
