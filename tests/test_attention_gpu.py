"""The Triton kernels of attention against the definition, in the interpreter where there is no GPU."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

pytest.importorskip("triton")
import torch

from pykernels.kernels.attention import gpu, gpu_decode, reference
from pykernels.kernels.attention.problem import Cache, Lengths, Scoring

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TOLERANCE = {torch.float32: 4e-6, torch.float16: 4e-3, torch.bfloat16: 3e-2}
NAN, INF = float("nan"), float("inf")


def random(*shape: int, dtype: Any = torch.float32, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE, dtype)


def operands(B: int, heads: tuple[int, int], queries: int, keys: int, D: int, Dv: int, dtype: Any) -> Any:
    shapes = ((heads[0], queries, D), (heads[1], keys, D), (heads[1], keys, Dv))
    return tuple(random(B, *shape, dtype=dtype, seed=seed) for seed, shape in enumerate(shapes))


def wide(value: Any) -> Any:
    """Tensors as NumPy arrays, float64 where they are of floating point."""
    if isinstance(value, tuple):
        mapped = tuple(map(wide, value))
        return type(value)(*mapped) if hasattr(value, "_fields") else mapped
    if not isinstance(value, torch.Tensor):
        return value
    return (value.double() if value.is_floating_point() else value).cpu().numpy()


def compare(name: str, q: torch.Tensor, Dv: int, *args: Any) -> torch.Tensor:
    """The output of a launcher, which is compared with the reference's."""
    out = torch.full((*q.shape[:3], Dv), NAN, dtype=q.dtype, device=q.device)
    lse = torch.full(q.shape[:3], NAN, device=q.device)
    getattr(gpu, name)(q, *args, out, lse)
    expected, logarithms = (np.full(x.shape, np.nan) for x in (out, lse))
    getattr(reference, name)(*wide((q, *args)), expected, logarithms)
    tolerance = TOLERANCE[q.dtype]
    np.testing.assert_allclose(wide(out), expected, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(wide(lse), logarithms, rtol=tolerance, atol=tolerance)
    return out


FULL = (1, 3, 20, 70)
FEATURES = {
    "plain": Scoring(0.3),
    "causal, sinks": Scoring(0.3, right=0, sinks=random(3)),
    "upper left, window": Scoring(-0.2, left=9, right=4, upper_left=True),
    "softcap, window": Scoring(0.5, softcap=2.0, left=30, right=0),
    "slopes, bias": Scoring(0.3, slopes=random(3).abs(), bias=random(20, 1).expand(FULL)),
    "bias, mask": Scoring(0.3, bias=random(*FULL), mask=(random(1, 70) < 0.5).expand(FULL), right=3),
}


@pytest.mark.parametrize("few", [True, False], ids=["chunks", "whole"])
@pytest.mark.parametrize("feature", FEATURES)
def test_features(feature, few, monkeypatch):
    """Rows of 3 heads x 20 queries, by few rows and chunks of 32 keys, or by blocks of rows."""
    monkeypatch.setattr(gpu, "FEW_ROWS", 64 if few else 0)
    monkeypatch.setattr(gpu_decode, "CHUNK", 32)
    q, k, v = operands(1, (3, 1), 20, 70, 20, 12, torch.float32)
    compare("attention", q, 12, k, v, FEATURES[feature], Lengths())


@pytest.mark.parametrize(
    ("dtype", "queries", "D", "Dv"),
    [
        (torch.float32, 7, 96, 1),
        (torch.float16, 40, 1, 64),
        (torch.bfloat16, 40, 40, 100),
        (torch.bfloat16, 1, 576, 512),
    ],
)
def test_dtypes_and_sizes(dtype, queries, D, Dv):
    """Tokens before heads in memory, which is NaN beyond the lengths; a sequence without keys."""
    heads = (4, 1)
    q, k, v = (x.transpose(1, 2).contiguous().transpose(1, 2) for x in operands(2, heads, queries, 65, D, Dv, dtype))
    k[0, :, 63:], v[0, :, 63:], k[1], v[1] = NAN, NAN, NAN, NAN
    kv = torch.tensor([63, 0], device=DEVICE)
    out = compare("attention", q, Dv, k, v, Scoring(D**-0.5, right=0), Lengths(kv=kv))
    assert not out[1].any()


def test_ragged():
    """Runs of 0, 1 and many queries, with fewer and more keys, some of them cut."""
    q, k, v = operands(1, (4, 2), 38, 60, 16, 16, torch.float32)
    cu_q, cu_k = torch.tensor([0, 3, 3, 37, 38], device=DEVICE), torch.tensor([0, 20, 21, 43, 60], device=DEVICE)
    for kv in (None, torch.tensor([10, 1, 0, 17], device=DEVICE)):
        compare("attention", q, 16, k, v, Scoring(0.3, right=0, left=12), Lengths(cu_q, cu_k, kv))


def test_empty():
    for queries, keys in ((0, 9), (9, 0)):
        q, k, v = operands(2, (2, 1), queries, keys, 16, 16, torch.float32)
        compare("attention", q, 16, k, v, Scoring(0.3, sinks=random(2)), Lengths())


@pytest.mark.parametrize("queries", [12, 40], ids=["chunks", "whole"])
def test_not_finite(queries, monkeypatch):
    """NaN and Inf reach the rows that may see them, and no others: through values, keys and +Inf logits."""
    monkeypatch.setattr(gpu_decode, "CHUNK", 32)
    q, k, v = operands(1, (4, 2), queries, 70, 16, 20, torch.float32)
    for key, column, value in ((2, 0, NAN), (68, 3, NAN), (65, 1, INF), (63, 1, -INF), (61, 2, -INF), (60, 19, INF)):
        v[:, :, key, column] = value
    k[:, :, 69] = NAN
    k[:, :, 67] = INF
    compare("attention", q, 20, k, v, Scoring(0.3, right=0), Lengths())


def pools(dtype: Any, stored: str, page: int, D: int, Dv: int) -> tuple[Any, ...]:
    """Pools of k and v of 9 pages and 2 heads, and their scales."""
    if stored == "same":
        return random(9, 2, page, D, dtype=dtype, seed=3), random(9, 2, page, Dv, dtype=dtype, seed=4), None, None
    codes = []
    for seed, width in ((3, D), (4, Dv)):
        x = 40 * random(9, 2, page, width, seed=seed)
        if stored == "int8":
            codes.append(x.clamp(-127, 127).to(torch.int8))
        else:
            values = x.cpu().numpy().astype(ml_dtypes.float8_e4m3fn)
            codes.append(torch.from_numpy(values.view(np.uint8)).to(DEVICE))
    return *codes, *(random(9, 2, page, seed=seed).abs() / 40 for seed in (5, 6))


@pytest.mark.parametrize(
    ("dtype", "stored", "page", "tokens"),
    [
        (torch.float32, "same", 5, 1),
        (torch.float32, "int8", 16, 3),
        (torch.float16, "e4m3fn", 64, 1),
        (torch.bfloat16, "int8", 7, 2),
        (torch.bfloat16, "same", 130, 2),
    ],
)
def test_decode(dtype, stored, page, tokens, monkeypatch):
    """Caches of different lengths: pages that a tile fits, that it does not, and one for all; NaN beyond a length."""
    monkeypatch.setattr(gpu_decode, "CHUNK", 64)
    pages = max(1, 70 // page)
    k, v, k_scale, v_scale = pools(dtype, stored, page, 24, 40)
    table = torch.tensor([[(3 * n + 2 * i) % 9 for i in range(pages)] for n in range(3)], device=DEVICE)
    lengths = torch.tensor([min(pages * page, 69), 0, page], device=DEVICE)
    table[1], table[2, 1:] = 1 << 40, 1 << 40
    last, used = table[0, (lengths[0] - 1) // page], (lengths[0] - 1) % page + 1
    if v_scale is None:
        v[last, :, used:] = NAN
    elif last != table[2, 0]:
        v_scale[last, :, used:] = NAN
    q = random(3, 6, tokens, 24, dtype=dtype)
    scoring = Scoring(0.2, right=0, left=50, softcap=9.0, sinks=random(6))
    compare("decode", q, 40, Cache(k, v, k_scale, v_scale, table, lengths), scoring)


def test_scales_keep_their_range():
    """Scales far below and above what float16 holds."""
    k, v, k_scale, v_scale = pools(torch.float16, "int8", 32, 16, 16)
    table, lengths = torch.zeros(1, 1, dtype=torch.int64, device=DEVICE), torch.full((1,), 32, device=DEVICE)
    for factor in (1e-7, 1e6):
        cache = Cache(k, v, k_scale, v_scale * factor, table, lengths)
        q = random(1, 2, 1, 16, dtype=torch.float16)
        out, lse = torch.empty(1, 2, 1, 16, device=DEVICE), torch.empty(1, 2, 1, device=DEVICE)
        gpu.decode(q, cache, Scoring(0.1), out, lse)
        expected, logarithms = np.empty(out.shape), np.empty(lse.shape)
        reference.decode(*wide((q, cache, Scoring(0.1))), expected, logarithms)
        np.testing.assert_allclose(wide(out), expected, rtol=0, atol=float(2e-3 * np.abs(expected).max()))


def test_a_batch_has_the_bits_of_its_members(monkeypatch):
    monkeypatch.setattr(gpu_decode, "CHUNK", 32)
    q, k, v = operands(3, (4, 2), 2, 100, 16, 16, torch.float32)
    lengths = torch.tensor([100, 7, 40], device=DEVICE)

    def run(some: Any, keys: int) -> tuple[torch.Tensor, torch.Tensor]:
        out, lse = torch.empty_like(q[some]), torch.empty(q[some].shape[:3], device=DEVICE)
        scoring = Scoring(0.3, right=0, sinks=random(4))
        gpu.attention(q[some], k[some, :, :keys], v[some, :, :keys], scoring, Lengths(kv=lengths[some]), out, lse)
        return out, lse

    together = run(slice(None), 100)
    for n, keys in enumerate((100, 7, 40)):
        for found, whole in zip(run(slice(n, n + 1), keys), together, strict=True):
            assert torch.equal(found[0], whole[n])


def test_float64_is_refused():
    q, k, v = operands(1, (2, 1), 5, 9, 16, 16, torch.float64)
    with pytest.raises(NotImplementedError, match="float64"):
        gpu.attention(q, k, v, Scoring(1.0), Lengths(), q, torch.empty(q.shape[:3]))
