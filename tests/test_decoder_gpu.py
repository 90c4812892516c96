"""The Triton kernels of the decoder, and of writing to pages, against the definitions, in the interpreter."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("triton")
import torch

from pykernels.kernels.attention import gpu as attention
from pykernels.kernels.attention import reference as attention_reference
from pykernels.kernels.attention.problem import Pages
from pykernels.kernels.decoder import gpu, reference
from pykernels.kernels.decoder.problem import Gated, Norm, Rotary

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TOLERANCE = {torch.float32: 2e-6, torch.float16: 1e-3, torch.bfloat16: 4e-3}
NAN, INF = float("nan"), float("inf")


def random(*shape: int, dtype: Any = torch.float32, seed: int = 0) -> torch.Tensor:
    """In memory whose rows are longer by three."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn((*shape[:-1], shape[-1] + 3), generator=generator)
    return x.to(DEVICE, dtype)[..., : shape[-1]]


def poison(*shape: int, dtype: Any) -> torch.Tensor:
    return torch.full((*shape[:-1], shape[-1] + 5), NAN, dtype=dtype, device=DEVICE)[..., : shape[-1]]


def as_numpy(x: Any) -> Any:
    if not isinstance(x, torch.Tensor):
        return x
    return (x.double() if x.is_floating_point() else x).cpu().numpy()


def agree(found: torch.Tensor, expected: np.ndarray) -> None:
    tolerance = TOLERANCE[found.dtype]
    largest = np.abs(expected[np.isfinite(expected)]).max(initial=0)
    np.testing.assert_allclose(as_numpy(found), expected, rtol=tolerance, atol=tolerance / 4 * float(largest))


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("kind", ["rms", "layer"])
@pytest.mark.parametrize(("M", "E", "resident"), [(9, 100, 1 << 14), (2, 1025, 1 << 14), (3, 9000, 1 << 10)])
def test_normalize(dtype, kind, M, E, resident, monkeypatch):
    """Rows together, alone, and in parts; with and without bias; with a residual, in place too; NaN, Inf and zeros."""
    monkeypatch.setattr(gpu, "RESIDENT", resident)
    problem = Norm(kind, 1e-5, 1.0 if M == 2 else 0.0)
    weight, bias = random(E, seed=1), random(E, seed=2) if M != 9 else None
    for added in (False, True):
        x, residual = 3 * random(M, E, dtype=dtype, seed=3) + 1, random(M, E, dtype=dtype, seed=4)
        x[0, 5], x[1] = INF if added else NAN, 0
        arguments = x, residual if added else None, weight, bias
        total, out = poison(M, E, dtype=dtype) if added else None, poison(M, E, dtype=dtype)
        gpu.normalize(*arguments, total, out, problem)
        kept = torch.empty(x.shape, dtype=dtype, device=DEVICE) if added else None
        if added:
            torch.add(x, residual, out=kept)
            assert torch.equal(total, kept)
        expected = np.full((M, E), NAN)
        reference.normalize(
            as_numpy(kept if added else x), None, *map(as_numpy, (weight, bias)), None, expected, problem
        )
        agree(out, expected)
        if added:
            gpu.normalize(*arguments, x, out.fill_(NAN), problem)
            assert torch.equal(x, total)
        else:
            gpu.normalize(*arguments, None, x, problem)
            out = x
        agree(out, expected)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize(("H", "D", "R"), [(3, 20, 20), (1, 66, 6), (40, 128, 96)])
def test_rotary(dtype, interleaved, H, D, R):
    """Heads between tokens in memory; some of a head or all of it is turned; into other memory, and in place."""
    cos, sin = (x.contiguous() for x in (random(9, R // 2, seed=1), random(9, R // 2, seed=2)))
    positions = torch.tensor([[0, 8, 3], [5, 5, 1]], device=DEVICE)
    x = random(2, 3, H, D, dtype=dtype, seed=3).transpose(1, 2)
    x[0, 0, 1, 1], x[1, 0, 2, D - 1] = NAN, INF
    out = poison(2, H, 3, D, dtype=dtype)
    gpu.rotary(x, cos, sin, positions, out, Rotary(interleaved))
    expected = np.full(x.shape, NAN)
    reference.rotary(*map(as_numpy, (x, cos, sin, positions)), expected, Rotary(interleaved))
    agree(out, expected)
    gpu.rotary(x, cos, sin, positions, x, Rotary(interleaved))
    assert torch.equal(x.nan_to_num(7), out.nan_to_num(7))


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("activation", ["relu", "silu", "gelu", "gelu_tanh"])
def test_gated(dtype, activation):
    """Tails, zeros, NaN and infinities too, against the definition and, on other numbers, torch's function."""
    for M, F in ((2, 1500), (5, 7)):
        x = 4 * random(M, 2 * F, dtype=dtype)
        x[0, 2:7] = torch.tensor([NAN, INF, -INF, 0, 60], dtype=dtype)
        out, expected = poison(M, F, dtype=dtype), np.full((M, F), NAN)
        gpu.gated(x, out, Gated(activation))
        reference.gated(as_numpy(x), expected, Gated(activation))
        agree(out, expected)
        function = getattr(torch.nn.functional, activation.removesuffix("_tanh"))
        approximate = {"approximate": "tanh"} if activation == "gelu_tanh" else {}
        agree(out[1:], as_numpy(function(x[1:, :F].double(), **approximate) * x[1:, F:].double()))


def test_nothing():
    for M, E in ((0, 5), (5, 0)):
        x = random(M, E)
        gpu.normalize(x, None, random(E), None, None, x, Norm("rms", 1e-5))
        gpu.gated(random(M, 2 * E), x, Gated("silu"))
    nothing = random(2, 3, 0, 8)
    positions = torch.zeros(2, 0, dtype=torch.int64, device=DEVICE)
    gpu.rotary(nothing, random(1, 4), random(1, 4), positions, nothing, Rotary())


@pytest.mark.parametrize(
    ("dtype", "stored", "heads", "D", "Dv"),
    [
        (torch.float32, torch.int8, 3, 24, 40),
        (torch.float16, torch.uint8, 40, 64, 128),
        (torch.bfloat16, torch.int8, 1, 7, 1),
        (torch.float32, torch.uint8, 2, 300, 20),
        (torch.bfloat16, torch.bfloat16, 5, 16, 33),
        (torch.float32, torch.float32, 1, 8, 8),
    ],
    ids=str,
)
def test_store(dtype, stored, heads, D, Dv):
    """Tokens before heads in memory, to rows in any order; every byte and bit, those that stay included."""
    k, v = (random(2, 3, heads, size, dtype=dtype, seed=size).transpose(1, 2) for size in (D, Dv))
    k[0, :, 1], v[1, 0, 2, 0] = 0, NAN
    k[1, heads - 1, 0, D - 1] = -INF
    v[0, 0, 0], k[0, 0, 0] = v[0, 0, 0].float().mul(1e-42).to(dtype), k[0, 0, 0] * 1e3
    where = torch.tensor([[[4, 0, 2], [1, 1, 4]], [[0, 2, 1], [0, 2, 2]]], device=DEVICE)
    quantized = stored in (torch.int8, torch.uint8)
    fill = 77 if quantized else NAN
    pools = [torch.full((5, heads, 3, size), fill, dtype=stored, device=DEVICE) for size in (D, Dv)]
    scales = [torch.full((5, heads, 3), NAN, device=DEVICE) if quantized else None for _ in pools]
    expected = Pages(*(None if x is None else _wide(x) for x in (*pools, *scales)))
    attention.store(k, v, Pages(*pools, *scales), where)
    attention_reference.store(_wide(k), _wide(v), expected, where.cpu().numpy())
    for found, wanted in zip((*pools, *scales), expected, strict=True):
        if found is not None:
            np.testing.assert_array_equal(_wide(found), wanted)


def _wide(x: torch.Tensor) -> np.ndarray:
    """A copy in NumPy, float32 where it is of floating point."""
    return (x.float() if x.is_floating_point() else x).cpu().numpy().copy()
