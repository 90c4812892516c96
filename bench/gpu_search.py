"""Search against torch's matrix product and top-k, MaxSim against padded torch, each against its limit."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

from .gpu_timing import Call, Row, interleaved, rows
from .gpu_topk import read_rate

D = 128
CASES = (
    ("bfloat16", 10_000, 1_000_000, 10),
    ("bfloat16", 10_000, 1_000_000, 100),
    ("float16", 512, 1_000_000, 10),
    ("int8", 10_000, 1_000_000, 10),
    ("float32", 1_000, 1_000_000, 10),
    ("bfloat16", 16, 1_000_000, 10),
    ("bfloat16", 1, 1_000_000, 10),
)
REHEARSAL = (("bfloat16", 3, 1500, 2), ("int8", 3, 300, 3))
SQUARE = 8192
WORKSPACE = 1 << 30
MAXSIM_CASES = ((1, 20_000), (32, 2_000))
"""Queries of 32 tokens, and documents of 20 to 300."""
TOKENS = 32


def measure(gpu: bool) -> Iterator[list[Row]]:
    reading = read_rate(gpu)
    for dtype, Q, N, k in CASES if gpu else REHEARSAL:
        calls = _search_calls(dtype, Q, N, k, gpu)
        seconds = interleaved(calls, gpu)
        flops = 2.0 * Q * N * D
        size = {"float32": 4, "int8": 1}.get(dtype, 2)
        rate = multiply_rate(dtype, gpu)
        if flops / rate > N * D * size / reading:
            work, limit = flops, f"a product at {rate / 1e12:.0f} Tops/s"
        else:
            work, rate, limit = float(N * D * size), reading, f"a read at {reading / 1e9:.0f} GB/s"
        yield rows("search", f"{dtype} {Q} of {N} x {D}, k = {k}", seconds, dict.fromkeys(calls, work), rate, limit)
    for B, documents in MAXSIM_CASES if gpu else ((2, 3),):
        yield _maxsim(B, documents, reading, gpu)


def multiply_rate(dtype: str, gpu: bool) -> float:
    """Operations per second of a large square matrix product; of float32, without TF32."""
    import torch

    n = SQUARE if gpu else 64
    kind = getattr(torch, dtype)
    x = torch.ones(n, n, device="cuda" if gpu else "cpu").to(kind)
    multiply: Call = functools.partial(torch._int_mm if kind == torch.int8 else torch.mm, x, x.T.contiguous().T)
    return 2.0 * n**3 / interleaved({"product": multiply}, gpu)["product"]


def _search_calls(dtype: str, Q: int, N: int, k: int, gpu: bool) -> dict[str, Call]:
    """Inner products; our scores are compared with torch's, in float32, of the first queries."""
    import torch

    from pykernels.kernels.search import gpu as launchers

    def vectors(count: int) -> Any:
        x = torch.randn(count, D, device="cuda" if gpu else "cpu")
        return (40 * x).clamp(-127, 127).to(torch.int8) if dtype == "int8" else x.to(getattr(torch, dtype))

    q, x = vectors(Q), vectors(N)
    scores = torch.empty(Q, k, device=q.device)
    ids = torch.empty(Q, k, dtype=torch.int64, device=q.device)
    ours = functools.partial(launchers.search, q, x, None, None, None, None, WORKSPACE, scores, ids)
    ours()
    some = q[:4].float()
    expected = torch.topk(some @ x.float().T, k, dim=1).values
    found = (some[:, None] * x[ids[:4]].float()).sum(2)
    if not (torch.allclose(scores[:4], expected, rtol=1e-4) and torch.allclose(found, expected, rtol=1e-4)):
        raise ArithmeticError(f"search disagrees with torch: {dtype}, {Q} queries of {N}, k = {k}")

    batch = max(1, WORKSPACE // (N * (4 if dtype == "float32" else 2)))
    wide = (q.half(), x.half()) if dtype == "int8" else (q, x)

    def torch_search() -> None:
        for first in range(0, Q, batch):
            torch.topk(wide[0][first : first + batch] @ wide[1].T, k, dim=1)

    return {"pykernels": ours, "torch mm + topk": torch_search}


def _maxsim(B: int, documents: int, reading: float, gpu: bool) -> list[Row]:
    """Scores of B queries and packed documents, beside torch on the padded ones, which are what its users hold."""
    import torch

    from pykernels.kernels.search import gpu as launchers

    device = "cuda" if gpu else "cpu"
    sizes = torch.randint(20, 301, (documents,), device=device)
    offsets = torch.nn.functional.pad(sizes.cumsum(0), (1, 0))
    x = torch.nn.functional.normalize(torch.randn(int(offsets[-1]), D, device=device), dim=1).half()
    q = torch.nn.functional.normalize(torch.randn(B, TOKENS, D, device=device), dim=2).half()
    lengths = torch.full((B,), TOKENS, device=device)
    scores = torch.empty(B, documents, device=device)
    present = torch.arange(300, device=device) < sizes[:, None]
    padded = torch.zeros(documents, 300, D, dtype=x.dtype, device=device)
    padded[present] = x

    def torch_maxsim() -> Any:
        product = torch.einsum("bld,ntd->bnlt", q, padded).masked_fill(~present[None, :, None, :], float("-inf"))
        return product.amax(3).sum(2, dtype=torch.float32)

    ours = functools.partial(launchers.maxsim, q, lengths, x, None, offsets, scores, None)
    ours()
    if not torch.allclose(scores, torch_maxsim(), atol=0.05):
        raise ArithmeticError(f"maxsim disagrees with torch: {B} queries of {documents} documents")
    calls: dict[str, Call] = {"pykernels": ours, "torch, padded": torch_maxsim}
    bytes_read = dict.fromkeys(calls, float(x.nbytes))
    case = f"maxsim float16 {B} x {TOKENS} tokens, {documents} documents"
    return rows("search", case, interleaved(calls, gpu), bytes_read, reading, f"a read at {reading / 1e9:.0f} GB/s")
