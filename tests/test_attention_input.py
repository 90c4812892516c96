"""Attention and merge: errors that name the argument, what came and what is accepted, before anything is written."""

from __future__ import annotations

import numpy as np
import pytest

from pykernels.attention import attention, attention_varlen, merge

Q, K, V = np.zeros((2, 6, 5, 8), np.float32), np.zeros((2, 3, 7, 8), np.float32), np.zeros((2, 3, 7, 4), np.float32)
LOG = np.zeros((2, 6, 5), np.float32)


def refused(error, words, *arrays, **options):
    out = np.full((2, 6, 5, 4), 7, np.float32)
    arrays = arrays or (Q, K, V)
    for given in ({}, {"out": out}):
        with pytest.raises(error) as raised:
            attention(*arrays, **given, **options)
        assert words in str(raised.value)
    assert (out == 7).all()


@pytest.mark.parametrize(
    ("error", "words", "arrays"),
    [
        (ValueError, "q has shape (6, 5, 8): expected (B, Hq, Sq, D)", (Q[0], K, V)),
        (ValueError, "v has shape (3, 7, 4): expected (B, Hkv, Sk, Dv)", (Q, K, V[0])),
        (ValueError, "q has shape (2, 6, 5, 8), k (2, 3, 7, 7)", (Q, K[..., :7], V)),
        (ValueError, "D and Dv of at least 1", (Q, K, V[..., :0])),
        (ValueError, "k has shape (2, 3, 7, 8) and v (2, 3, 6, 4)", (Q, K, V[:, :, :6])),
        (ValueError, "q has 5 heads and k 3: expected", (Q[:, :5], K, V)),
        (ValueError, "q has 6 heads and k 0: expected", (Q, K[:, :0], V[:, :0])),
        (ValueError, "q has a batch of 1 and k of 2", (Q[:1], K, V)),
        (TypeError, "q has dtype int64: expected one of float64, float32, float16, bfloat16", (Q.astype(int), K, V)),
        (TypeError, "k has dtype float64: expected float32", (Q, K.astype(float), V)),
        (TypeError, "v has dtype float16: expected float32", (Q, K, V.astype(np.float16))),
    ],
)
def test_operands(error, words, arrays):
    refused(error, words, *arrays)


@pytest.mark.parametrize(
    ("error", "words", "options"),
    [
        (ValueError, "causal='left': expected False, True, 'lower_right' or 'upper_left'", {"causal": "left"}),
        (ValueError, "causal=1: expected", {"causal": 1}),
        (TypeError, "scale='x': expected a number", {"scale": "x"}),
        (TypeError, "scale=True: expected a number", {"scale": True}),
        (ValueError, "scale=nan: expected a finite number", {"scale": float("nan")}),
        (TypeError, "window=3: expected a pair (left, right)", {"window": 3}),
        (TypeError, "window=(1, 2, 3): expected a pair", {"window": (1, 2, 3)}),
        (TypeError, "window=(1.5, 0): expected a pair of integers", {"window": (1.5, 0)}),
        (ValueError, "window=(-2, 0): expected numbers of keys, or -1", {"window": (-2, 0)}),
        (ValueError, "softcap=0: expected a positive number, or None", {"softcap": 0}),
        (ValueError, "softcap=-1.0: expected a positive number", {"softcap": -1.0}),
        (ValueError, "softcap=inf: expected a finite number", {"softcap": float("inf")}),
        (ValueError, "sinks has shape (3,): expected (6,)", {"sinks": np.zeros(3)}),
        (TypeError, "sinks has dtype int64", {"sinks": np.zeros(6, int)}),
        (ValueError, "alibi_slopes has shape (6, 1): expected (6,)", {"alibi_slopes": np.zeros((6, 1))}),
        (ValueError, "bias has shape (5, 6): expected one that broadcasts to (2, 6, 5, 7)", {"bias": np.zeros((5, 6))}),
        (ValueError, "bias has shape (1, 2, 6, 5, 7): expected", {"bias": np.zeros((1, 2, 6, 5, 7))}),
        (TypeError, "bias has dtype bool", {"bias": np.ones(7, bool)}),
        (ValueError, "mask has shape (3, 1, 1, 7): expected", {"mask": np.ones((3, 1, 1, 7), bool)}),
        (TypeError, "mask has dtype float32: expected bool", {"mask": np.ones(7, np.float32)}),
        (ValueError, "kv_lengths=[8, 0]: expected from 0 to 7", {"kv_lengths": [8, 0]}),
        (ValueError, "kv_lengths=[-1, 0]: expected from 0 to 7", {"kv_lengths": [-1, 0]}),
        (ValueError, "kv_lengths has shape (3,): expected (2,)", {"kv_lengths": [1, 2, 3]}),
        (TypeError, "kv_lengths has dtype float64: expected one of int64, int32", {"kv_lengths": [1.0, 2.0]}),
        (ValueError, "backend='tpu': expected one of reference, cpu, gpu", {"backend": "tpu"}),
        (NotImplementedError, "backend='gpu' needs a torch tensor", {"backend": "gpu"}),
    ],
)
def test_options(error, words, options):
    refused(error, words, **options)


def test_out():
    memory = np.zeros((2, 6, 5, 8), np.float32)
    frozen = np.zeros((2, 6, 5, 4), np.float32)
    frozen.flags.writeable = False
    for error, words, out in (
        (TypeError, "out is a list", [1.0]),
        (ValueError, "out has shape (2, 6, 5, 8): expected (2, 6, 5, 4)", memory),
        (TypeError, "out has dtype float64: expected float32", np.zeros((2, 6, 5, 4))),
        (ValueError, "out is read-only", frozen),
    ):
        with pytest.raises(error) as raised:
            attention(Q, K, V, out=out)
        assert words in str(raised.value)
    bias = np.zeros((2, 6, 5, 7), np.float32)
    for shared, arrays, options in (
        (memory[..., :4], (memory, K, V), {}),
        (bias[..., :4], (Q, K, V), {"bias": bias}),
    ):
        with pytest.raises(ValueError, match="out shares memory with the input"):
            attention(*arrays, **options, out=shared)
    attention(memory[..., :4], K[..., :4], V, out=memory[..., 4:])  # side by side is not shared


@pytest.mark.parametrize(
    ("error", "words", "queries", "keys", "options"),
    [
        (ValueError, "cu_seqlens_q=[0, 3, 9]: expected to ascend from 0 to 10", [0, 3, 9], [0, 7, 14], {}),
        (ValueError, "cu_seqlens_q=[1, 3, 10]: expected to ascend from 0 to 10", [1, 3, 10], [0, 7, 14], {}),
        (ValueError, "cu_seqlens_k=[0, 9, 8, 14]: expected to ascend", [0, 3, 4, 10], [0, 9, 8, 14], {}),
        (ValueError, "cu_seqlens_q has 3 and cu_seqlens_k 2 numbers: expected N + 1 of both", [0, 3, 10], [0, 14], {}),
        (ValueError, "cu_seqlens_q has shape (1, 2): expected one axis", [[0, 10]], [0, 14], {}),
        (TypeError, "cu_seqlens_k has dtype float64", [0, 10], [0.0, 14.0], {}),
        (ValueError, "kv_lengths=[8, 2]: expected from 0 to [7, 7]", [0, 3, 10], [0, 7, 14], {"kv_lengths": [8, 2]}),
        (ValueError, "kv_lengths has shape (1,): expected (2,)", [0, 3, 10], [0, 7, 14], {"kv_lengths": [8]}),
    ],
)
def test_ragged(error, words, queries, keys, options):
    q, k, v = (x.transpose(0, 2, 1, 3).reshape(-1, *x.shape[1::2]) for x in (Q, K, V))
    out = np.full((10, 6, 4), 7, np.float32)
    with pytest.raises(error) as raised:
        attention_varlen(q, k, v, queries, keys, out=out, **options)
    assert words in str(raised.value) and (out == 7).all()
    with pytest.raises(ValueError, match=r"q has shape \(2, 6, 5, 8\): expected \(T, Hq, D\)"):
        attention_varlen(Q, K, V, [0, 10], [0, 14])


def test_merge():
    out = np.zeros((2, 6, 5, 4), np.float32)
    for error, words, arguments in (
        (ValueError, "out_b has shape (2, 6, 4, 4): expected (2, 6, 5, 4)", (out, LOG, out[:, :, :4], LOG)),
        (ValueError, "lse_b has shape (6, 5): expected (2, 6, 5)", (out, LOG, out, LOG[0])),
        (ValueError, "lse_a has shape (6, 5): expected (5, 6)", (out[0], LOG[0], out[0], LOG[0])),  # tokens, heads
        (
            ValueError,
            "out_a has shape (5, 4): expected (B, Hq, Sq, Dv), or (T, Hq, Dv)",
            (out[0, 0], LOG, out[0, 0], LOG),
        ),
        (TypeError, "out_b has dtype float64: expected float32", (out, LOG, out.astype(float), LOG)),
        (TypeError, "lse_a has dtype float64: expected float32", (out, LOG.astype(float), out, LOG)),
    ):
        with pytest.raises(error) as raised:
            merge(*arguments)
        assert words in str(raised.value)


def test_torch():
    torch = pytest.importorskip("torch")
    q, k, v = (torch.from_numpy(x) for x in (Q, K, V))
    for error, words, arrays, options in (
        (TypeError, "k is a ndarray: expected a Tensor, as q", (q, K, v), {}),
        (TypeError, "sinks is a ndarray: expected a Tensor", (q, k, v), {"sinks": np.zeros(6)}),
        (ValueError, "k is on device meta: expected cpu, as q", (q, k.to("meta"), v.to("meta")), {}),
        (
            ValueError,
            "kv_lengths is on device meta",
            (q, k, v),
            {"kv_lengths": torch.zeros(2, dtype=int, device="meta")},
        ),
        (TypeError, "out is a ndarray", (q, k, v), {"out": np.zeros((2, 6, 5, 4), np.float32)}),
        (ValueError, "out has elements that share", (q, k, v), {"out": torch.zeros(2, 6, 1, 4).expand(2, 6, 5, 4)}),
        (ValueError, "out is read-only", (q, k, v), {"out": torch.zeros(2, 6, 5, 4, requires_grad=True)}),
        (
            NotImplementedError,
            "alibi_slopes requires a gradient",
            (q, k, v),
            {"alibi_slopes": torch.ones(6, requires_grad=True)},
        ),
    ):
        with pytest.raises(error) as raised:
            attention(*arrays, **options)
        assert words in str(raised.value)
    with pytest.raises(TypeError, match="kv_lengths is a Tensor: expected a ndarray"):
        attention(Q, K, V, kv_lengths=torch.zeros(2, dtype=int))
    with pytest.raises(NotImplementedError, match="alibi_slopes requires a gradient"):
        attention(q, k, v, alibi_slopes=torch.ones(6, requires_grad=True))
