"""Gradients of attention on the CPU against the definition, finite differences and torch."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numba
import numpy as np
import pytest
from conftest import same_bits

from pykernels._dispatch import launcher
from pykernels.kernels import _numba
from pykernels.kernels.attention.cpu_backward_rows import differentiate_rows
from pykernels.kernels.attention.problem import Gradients, Lengths, Scoring

Array = np.ndarray[Any, Any]
Sizes = tuple[int, int, int, int, int, int, int]

GROUPED: Sizes = (2, 6, 2, 70, 90, 40, 24)  # batch, heads, heads of keys, queries, keys, D, Dv
MANY_ROWS: Sizes = (1, 8, 1, 135, 33, 16, 33)  # in several parts
EVERYTHING = Lengths()
FEATURES: dict[str, dict[str, Any]] = {
    "plain": {},
    "causal": {"right": 0},
    "upper left": {"right": 0, "upper_left": True},
    "window": {"left": 9, "right": 3, "softcap": 1.5},
    "slopes and sinks": {"right": 0, "slopes": (6,), "sinks": (6,)},
    "sinks and mask": {"sinks": (6,), "mask": (2, 1, 70, 90), "softcap": 2.0},
}


@pytest.fixture(autouse=True)
def in_parallel(monkeypatch: pytest.MonkeyPatch) -> None:
    """One compiled variant of each kernel and type, to save time: tiles for all threads, rows for one."""
    monkeypatch.setattr(_numba, "SERIAL_BYTES", 0)
    monkeypatch.setattr(differentiate_rows, "parallel", differentiate_rows.serial)


class Case:
    """A problem in float64 whose gradients are taken in any dtype."""

    def __init__(self, sizes: Sizes, lengths: Lengths = EVERYTHING, **features: Any) -> None:
        batch, heads, kv_heads, queries, keys, dim, value_dim = sizes
        rng = np.random.default_rng(0)
        self.q = rng.standard_normal((batch, heads, queries, dim))
        self.k = rng.standard_normal((batch, kv_heads, keys, dim))
        self.v = rng.standard_normal((batch, kv_heads, keys, value_dim))
        self.grad_out = rng.standard_normal((batch, heads, queries, value_dim))
        self.grad_lse: Array | None = rng.standard_normal(self.q.shape[:3])
        self.lengths, self.bias_shape = lengths, features.get("bias")
        full = (batch, heads, queries, keys)
        for name in ("slopes", "sinks", "bias"):
            if name in features:
                features[name] = rng.standard_normal(features[name])
        if "mask" in features:
            features["mask"] = np.broadcast_to(rng.random(features["mask"]) < 0.6, full)
        if "bias" in features:
            features["bias"] = np.broadcast_to(features["bias"], full)
        self.scoring = Scoring(**{"scale": dim**-0.5, **features})

    def rounded(self, dtype: Any) -> Case:
        """The same with numbers of `dtype`."""
        new = object.__new__(Case)
        new.__dict__ |= self.__dict__
        for name in ("q", "k", "v", "grad_out"):
            setattr(new, name, getattr(self, name).astype(dtype))
        wide = np.float64 if dtype == np.float64 else np.float32
        if self.grad_lse is not None:
            new.grad_lse = self.grad_lse.astype(wide)
        arrays = {name: getattr(self.scoring, name) for name in ("slopes", "sinks", "bias")}
        given = {name: x.astype(wide, order="K") for name, x in arrays.items() if x is not None}
        if self.bias_shape is not None:
            own = arrays["bias"][tuple(slice(n) for n in self.bias_shape)].astype(wide)
            given["bias"] = np.broadcast_to(own, arrays["bias"].shape)
        new.scoring = self.scoring._replace(**given)
        return new

    def forward(self) -> tuple[Array, Array]:
        wide = np.float64 if self.q.dtype == np.float64 else np.float32
        out, lse = np.zeros(self.grad_out.shape, self.q.dtype), np.zeros(self.q.shape[:3], wide)
        launcher("attention", "reference", "attention")(self.q, self.k, self.v, self.scoring, self.lengths, out, lse)
        return out, lse

    def gradients(self, backend: str, grads: Gradients | None = None) -> Gradients:
        """Into memory of NaN."""
        out, lse = self.forward()
        if grads is None:
            bias = None if self.bias_shape is None else np.full(self.bias_shape, np.nan, lse.dtype)
            sinks = None if self.scoring.sinks is None else np.full(self.q.shape[1], np.nan, lse.dtype)
            grads = Gradients(*(np.full(x.shape, np.nan, x.dtype) for x in (self.q, self.k, self.v)), bias, sinks)
        launcher("attention", backend, "attention_backward")(
            self.grad_out, self.grad_lse, self.q, self.k, self.v, out, lse, self.scoring, self.lengths, grads
        )
        return grads

    def check(self, dtype: Any = np.float32) -> Gradients:
        """Against the definition: sums of so many terms, of about the size of the largest result."""
        case = self.rounded(dtype)
        found, expected = case.gradients("cpu"), case.gradients("reference")
        terms = max(self.k.shape[2], self.q.shape[2] * self.q.shape[1])
        for name, a, b in zip(found._fields, found, expected, strict=True):
            if b is not None and b.size:
                limit = 2 * np.finfo(dtype).eps * terms**0.5 * max(np.abs(b).max(), 0.1)
                np.testing.assert_allclose(a, b, rtol=0, atol=limit, err_msg=name)
        return found


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", FEATURES)
def test_features(name: str, dtype: Any) -> None:
    Case(GROUPED, **FEATURES[name]).check(dtype)


@pytest.mark.parametrize(
    "sizes",
    [(1, 1, 1, 1, 1, 1, 1), (1, 3, 3, 63, 129, 96, 80), (1, 16, 1, 7, 100, 64, 64), (2, 2, 1, 129, 63, 192, 128)],
)
def test_shapes(sizes: Sizes) -> None:
    Case(sizes).check()
    Case(sizes, right=0).check()


@pytest.mark.parametrize("sizes", [(0, 2, 1, 3, 4, 8, 8), (2, 2, 1, 0, 4, 8, 8), (2, 2, 1, 3, 0, 8, 8)])
def test_empty(sizes: Sizes) -> None:
    found = Case(sizes).check()
    assert all((x == 0).all() for x in found[:3])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "shape",
    [(2, 6, 70, 90), (1, 6, 70, 90), (2, 1, 70, 90), (1, 1, 70, 90), (2, 6, 1, 90), (1, 1, 70, 1), (1, 1, 1, 90)],
)
def test_bias(shape: tuple[int, ...], dtype: Any) -> None:
    Case(GROUPED, right=0, softcap=3.0, bias=shape).check(dtype)


def test_bias_of_parts() -> None:
    Case(MANY_ROWS, bias=(1, 1, 135, 33), sinks=(8,)).check()
    Case(MANY_ROWS, bias=(1, 8, 1, 33)).check()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_ragged(dtype: Any) -> None:
    q, k = np.array([0, 5, 5, 69, 70]), np.array([0, 20, 50, 51, 90])
    Case((1, 6, 2, 70, 90, 40, 24), Lengths(q, k), right=0).check(dtype)
    Case((1, 6, 2, 70, 90, 40, 24), Lengths(q, k, np.array([20, 0, 1, 17])), left=30).check(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_beyond_lengths(dtype: Any) -> None:
    case = Case(GROUPED, Lengths(kv=np.array([0, 57])), right=0)
    clean = case.check(dtype)
    case.k[0], case.k[1, :, 57:], case.v[0], case.v[1, :, 57:] = (np.nan,) * 4
    dirty = case.rounded(dtype).gradients("cpu")
    for a, b in zip(clean[:3], dirty[:3], strict=True):
        same_bits(a, b)
    assert (dirty.k[0] == 0).all() and (dirty.v[1, :, 57:] == 0).all()


def test_without_a_gradient_of_lse() -> None:
    case = Case(GROUPED, right=0)
    case.grad_lse = None
    case.check()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_not_a_number(dtype: Any) -> None:
    """What is not a number stays with the rows that may see it, and with the keys that these see."""
    mask = np.ones((1, 1, 70, 90), bool)
    mask[..., 30:33] = False
    mask[..., 11, :] = False
    case = Case((1, 6, 2, 70, 90, 40, 24), right=0, upper_left=True)
    case.scoring = case.scoring._replace(mask=np.broadcast_to(mask, (1, 6, 70, 90)))
    expected = case.check(dtype)
    case.k[..., 30, :], case.v[..., 31, :], case.k[..., 32, 3] = np.nan, np.inf, -np.inf  # no row sees them
    case.q[0, :, 11] = np.nan  # it sees no key
    case.q[0, 4, 50, 7] = case.grad_out[0, 5, 60, 2] = np.nan
    case.v[0, 0, 65] = np.nan
    found = case.rounded(dtype).gradients("cpu")
    rows = np.zeros((1, 6, 70), bool)
    rows[0, 4, 50] = rows[0, 5, 60] = rows[0, :3, 65:] = True
    seen = np.zeros((1, 2, 90), bool)
    seen[0, 1, :61] = seen[0, 0, :70] = True
    seen[..., 30:33] = False
    assert np.isnan(found.q[rows]).all() and np.isnan(found.k[seen]).all()
    for a, b, spoilt in zip(found[:3], expected[:3], (rows, seen, seen), strict=True):
        limit = 2 * np.finfo(dtype).eps * 420**0.5 * np.abs(b).max()
        np.testing.assert_allclose(a[~spoilt], b[~spoilt], rtol=0, atol=limit)


@pytest.mark.parametrize("features", [{"right": 0, "softcap": 0.7, "sinks": (2,)}, {"bias": (1, 2, 1, 4), "left": 2}])
def test_finite_differences(features: dict[str, Any]) -> None:
    case = Case((1, 2, 1, 3, 4, 3, 2), **features)
    found = case.gradients("cpu")

    def objective() -> float:
        out, lse = case.forward()
        assert case.grad_lse is not None
        return float((out * case.grad_out).sum() + (lse * case.grad_lse).sum())

    arrays = (case.q, case.k, case.v, case.scoring.bias, case.scoring.sinks)
    for x, gradient in zip(arrays, found, strict=True):
        if gradient is None:
            continue
        own = x if x is not case.scoring.bias else x[:, :, :1]
        own.flags.writeable = True
        for i in np.ndindex(gradient.shape):
            value, sides = own[i], []
            for step in (1e-6, -1e-6):
                own[i] = value + step
                sides.append(objective())
            own[i] = value
            assert gradient[i] == pytest.approx((sides[0] - sides[1]) / 2e-6, rel=1e-6, abs=1e-8)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_narrow(dtype: str) -> None:
    torch = pytest.importorskip("torch")
    exact = Case((1, 2, 2, 100, 100, 64, 64), right=0)
    exact.grad_lse = None
    case = exact.rounded(np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else np.float16))
    wide = case.rounded(np.float64)
    expected, found = wide.gradients("reference"), case.gradients("cpu")
    inputs = [torch.tensor(x.astype(np.float32)).to(getattr(torch, dtype)) for x in (case.q, case.k, case.v)]
    for x in inputs:
        x.requires_grad_()
    out = torch.nn.functional.scaled_dot_product_attention(*inputs, is_causal=True)
    out.backward(torch.tensor(case.grad_out.astype(np.float32)).to(out.dtype))
    for a, b, x in zip(expected[:3], found[:3], inputs, strict=True):
        theirs = np.abs(x.grad.double().numpy() - a)
        ours = np.abs(b.astype(np.float64) - a)
        assert ours.max() <= 2 * theirs.max() and (ours**2).mean() <= 4 * (theirs**2).mean()


def test_strides() -> None:
    """Tokens before heads, every other head, a longer memory, gradients the wrong way round: the same bits."""
    case = Case(GROUPED, right=0).rounded(np.float32)
    expected = case.gradients("cpu")
    for x in ("q", "k", "v"):
        tokens_first = np.ascontiguousarray(getattr(case, x).swapaxes(1, 2)).swapaxes(1, 2)
        setattr(case, x, tokens_first)
    case.grad_out = np.repeat(case.grad_out, 2, axis=1)[:, ::2]
    same = case.gradients("cpu", Gradients(*(np.full_like(x, np.nan) for x in (case.q, case.k, case.v))))
    other = case.gradients("cpu", Gradients(*(np.full(x.shape, np.nan, x.dtype)[:, ::-1] for x in expected[:3])))
    for a, b, c in zip(expected[:3], same[:3], other[:3], strict=True):
        same_bits(a, np.ascontiguousarray(b))
        same_bits(a, np.ascontiguousarray(c))


@pytest.mark.skipif(numba.config.NUMBA_NUM_THREADS < 2, reason="one processor")
def test_threads_and_batches() -> None:
    case = Case((3, 8, 1, 135, 90, 16, 16), right=0, bias=(1, 1, 135, 90)).rounded(np.float32)
    several = case.gradients("cpu")
    before = numba.get_num_threads()
    try:
        numba.set_num_threads(1)
        single = case.gradients("cpu")
    finally:
        numba.set_num_threads(before)
    for a, b in zip(several[:4], single[:4], strict=True):
        same_bits(a, b)
    for name in ("q", "k", "v", "grad_out", "grad_lse"):
        setattr(case, name, getattr(case, name)[1:2])
    case.scoring = case.scoring._replace(bias=case.scoring.bias[:1])
    for a, b in zip(several[:3], case.gradients("cpu")[:3], strict=True):
        same_bits(a[1:2], b)
