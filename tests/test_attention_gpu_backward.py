"""Triton's gradients of attention, and halo attention, against the definition, in the interpreter without a GPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("triton")
import torch

from pykernels.kernels.attention import reference
from pykernels.kernels.attention.gpu_backward import attention_backward
from pykernels.kernels.attention.gpu_halo import halo
from pykernels.kernels.attention.gpu_halo_backward import halo_backward
from pykernels.kernels.attention.problem import Gradients, Lengths, Scoring, Window

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TOLERANCE = 4e-6  # of the largest element
WHOLE = Lengths()
PLAIN = (2, 4, 2, 37, 40, 16, 16)  # B, Hq, Hkv, Sq, Sk, D, Dv


def on_device(x: np.ndarray | None) -> torch.Tensor | None:
    return None if x is None else torch.tensor(x, device=DEVICE)


def poisoned(x: np.ndarray | None) -> torch.Tensor | None:
    return None if x is None else torch.full(x.shape, float("nan"), device=DEVICE)


def agree(found: tuple[torch.Tensor | None, ...], expected: tuple[np.ndarray | None, ...]) -> None:
    for mine, theirs in zip(found, expected, strict=True):
        if theirs is not None:
            scale = max(1.0, float(np.abs(theirs).max(initial=0)))
            np.testing.assert_allclose(mine.cpu().numpy(), theirs, rtol=0, atol=TOLERANCE * scale)


class Attention:
    """Random arguments of `attention_backward` in float32, and what the reference makes of them."""

    def __init__(
        self, shape: tuple[int, ...], lengths: Lengths = WHOLE, bias: Any = None, mask: Any = None,
        sinks: bool = False, slopes: bool = False, **options: Any,
    ) -> None:  # fmt: skip
        rng = np.random.default_rng(0)
        B, Hq, Hkv, Sq, Sk, D, Dv = shape
        self.q, self.k, self.v, self.grad_out = (
            rng.standard_normal(each, np.float32)
            for each in ((B, Hq, Sq, D), (B, Hkv, Sk, D), (B, Hkv, Sk, Dv), (B, Hq, Sq, Dv))
        )
        self.bias = None if bias is None else rng.standard_normal(bias, np.float32)
        mask = None if mask is None else rng.random(mask) < 0.6
        sinks, slopes = (rng.random(Hq).astype(np.float32) if given else None for given in (sinks, slopes))
        whole = [None if x is None else np.broadcast_to(x, (B, Hq, Sq, Sk)) for x in (self.bias, mask)]
        self.scoring = Scoring(0.3, slopes=slopes, bias=whole[0], mask=whole[1], sinks=sinks, **options)
        self.lengths = lengths
        self.out, self.lse = np.empty(self.grad_out.shape, np.float32), np.empty((B, Hq, Sq), np.float32)
        reference.attention(self.q, self.k, self.v, self.scoring, lengths, self.out, self.lse)
        self.grad_lse = rng.standard_normal(self.lse.shape, np.float32)

    def gradients(self, new: Any) -> Gradients:
        return Gradients(*map(new, (self.q, self.k, self.v, self.bias, self.scoring.sinks)))

    def expected(self) -> Gradients:
        grads = self.gradients(lambda x: None if x is None else np.empty(x.shape))
        given = self.grad_out, self.grad_lse, self.q, self.k, self.v, self.out, self.lse
        reference.attention_backward(*given, self.scoring, self.lengths, grads)
        return grads

    def found(self) -> Gradients:
        grads = self.gradients(poisoned)
        given = map(on_device, (self.grad_out, self.grad_lse, self.q, self.k, self.v, self.out, self.lse))
        bias, mask = (
            None if x is None else on_device(x[tuple(slice(None if step else 1) for step in x.strides)]).expand(x.shape)
            for x in (self.scoring.bias, self.scoring.mask)
        )
        slopes, sinks = map(on_device, (self.scoring.slopes, self.scoring.sinks))
        scoring = self.scoring._replace(bias=bias, mask=mask, slopes=slopes, sinks=sinks)
        attention_backward(*given, scoring, Lengths(*map(on_device, self.lengths)), grads)
        return grads


CASES = {
    "multi-head": ((1, 2, 2, 5, 7, 8, 8), {}),
    "no key": ((1, 2, 1, 5, 0, 8, 8), {}),
    "no query": ((1, 2, 1, 0, 5, 8, 8), {"sinks": True}),
    "everything": ((2, 6, 2, 37, 50, 20, 8), {"softcap": 2.0, "right": 0, "sinks": True, "slopes": True}),
    "padding bias": (PLAIN, {"bias": (2, 1, 1, 40), "mask": (1, 4, 37, 1), "left": 5, "right": 3, "upper_left": True}),
    "bias of a batch": (PLAIN, {"bias": (1, 4, 37, 40), "softcap": 1.0, "lengths": Lengths(kv=np.array([40, 11]))}),
    "bias of a row": (PLAIN, {"bias": (1, 1, 37, 1), "mask": (2, 1, 1, 40)}),
    "ragged": (
        (1, 6, 2, 70, 90, 16, 24),
        {"right": 0, "lengths": Lengths(np.array([0, 0, 30, 31, 70]), np.array([0, 20, 20, 80, 90]))},
    ),
    "ragged and cut": (
        (1, 3, 1, 50, 90, 16, 16),
        {"left": 9, "lengths": Lengths(np.array([0, 30, 50]), np.array([0, 50, 90]), np.array([20, 0]))},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_attention_backward(name):
    shape, options = CASES[name]
    case = Attention(shape, **options)
    agree(case.found(), case.expected())


def test_what_lies_beyond_a_length_is_not_read():
    case = Attention((2, 4, 2, 20, 40, 16, 16), Lengths(kv=np.array([33, 0])), right=0, sinks=True)
    expected = case.expected()
    for n, count in enumerate(case.lengths.kv):
        case.k[n, :, count:] = case.v[n, :, count:] = np.nan
    found = case.found()
    agree(found, expected)
    assert not found.k[1].any() and not found.v[0, :, 33:].any()


def test_a_batch_gives_the_bits_of_its_members_in_any_strides():
    case = Attention((2, 4, 2, 20, 40, 16, 16), right=0)
    together, again = case.found(), case.found()
    assert all(torch.equal(x, y) for x, y in zip(together[:3], again[:3], strict=True))
    for name in ("q", "k", "v", "grad_out", "grad_lse", "out", "lse"):
        member = np.moveaxis(np.moveaxis(getattr(case, name)[1:], 1, 2).copy(), 1, 2)
        setattr(case, name, member)
    assert all(torch.equal(x[1:], y) for x, y in zip(together[:3], case.found()[:3], strict=True))


def test_bfloat16_is_as_close_as_torch():
    case = Attention((1, 4, 2, 40, 40, 64, 64), right=0)
    case.grad_lse[:] = 0
    q, k, v, grad_out, out = (
        torch.tensor(x, dtype=torch.bfloat16, device=DEVICE) for x in (case.q, case.k, case.v, case.grad_out, case.out)
    )
    for name, x in (("q", q), ("k", k), ("v", v), ("grad_out", grad_out)):
        setattr(case, name, x.float().cpu().numpy())
    reference.attention(case.q, case.k, case.v, case.scoring, case.lengths, case.out, case.lse)
    grads = Gradients(*(torch.full_like(x, float("nan")) for x in (q, k, v)))
    attention_backward(grad_out, None, q, k, v, out, on_device(case.lse), case.scoring, Lengths(), grads)
    leaves = [x.clone().requires_grad_() for x in (q, k, v)]
    theirs = torch.nn.functional.scaled_dot_product_attention(*leaves, is_causal=True, scale=0.3, enable_gqa=True)
    theirs.backward(grad_out)
    for expected, mine, leaf in zip(case.expected(), grads, leaves, strict=False):
        error, allowed = (np.abs(x.float().cpu().numpy() - expected).max() for x in (mine, leaf.grad))
        assert error <= 2 * allowed


HALOS = {
    "both tables": ((2, 1, 5, 7, 5, 7), Window(4, 2), (True, True)),
    "stride and mask": ((1, 2, 5, 6, 16, 16), Window(4, 3, 2, True), (True, True)),
    "one table": ((1, 1, 9, 8, 20, 20), Window(8, 3), (True, False)),
    "no halo": ((1, 1, 5, 4, 8, 8), Window(3, 0, 1, True), (False, True)),
    "no table": ((1, 1, 13, 10, 8, 8), Window(10, 2, 5), (False, False)),
    "halo beyond the image": ((1, 1, 3, 2, 8, 8), Window(2, 4), (True, True)),
    "no image": ((1, 1, 0, 6, 8, 8), Window(2, 1), (True, True)),
}


@pytest.mark.parametrize("name", HALOS)
def test_halo(name):
    (B, H, height, width, D, Dv), window, tables = HALOS[name]
    rng = np.random.default_rng(0)
    size = -(-height // window.stride), -(-width // window.stride)
    q, k, v, grad_out = (
        np.moveaxis(rng.standard_normal((B, *shape[:2], H, shape[2]), np.float32), 3, 1)
        for shape in ((*size, D), (height, width, D), (height, width, Dv), (*size, Dv))
    )
    rows = 2 * (window.block + window.halo) - 1
    given = q, k, v, *(rng.standard_normal((rows, D), np.float32) if table else None for table in tables)
    out, lse = np.empty((B, H, *size, Dv), np.float32), np.empty((B, H, *size), np.float32)
    reference.halo(*given, window, 0.3, out, lse)
    found = poisoned(out), poisoned(lse)
    halo(*map(on_device, given), window, 0.3, *found)
    agree(found, (out, lse))
    expected = [None if x is None else np.empty(x.shape) for x in given]
    reference.halo_backward(grad_out, *given, window, 0.3, out, lse, *expected)
    grads = tuple(map(poisoned, given))
    halo_backward(*map(on_device, (grad_out, *given)), window, 0.3, *map(on_device, (out, lse)), *grads)
    agree(grads, expected)


def test_limits_are_named():
    x = torch.zeros(1, 1, 2, 2, 1, device=DEVICE)
    table = torch.zeros(401, 1, device=DEVICE)
    with pytest.raises(NotImplementedError, match=r"tables of at most 256 rows, .* is 401"):
        halo(x, x, x, table, None, Window(200, 1), 1.0, x, x[..., 0])
    double = torch.zeros(1, 1, 2, 1, dtype=torch.float64, device=DEVICE)
    with pytest.raises(NotImplementedError, match=r"gradients of float64.*backend='cpu'"):
        lse = double[..., 0]
        given = double, None, double, double, double, double, lse
        attention_backward(*given, Scoring(1.0), Lengths(), Gradients(double, double, double))
