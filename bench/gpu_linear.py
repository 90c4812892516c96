"""Products with narrow weights against torch's in bfloat16, its int8 kernel and what Inductor makes of dequantizing.

Up to 16 rows they are replayed from a CUDA graph that goes through copies of the weights, which so come from memory:
the time is that of a product in a chain of them, as a decoder has it.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

from .gpu_attention import copy_rate
from .gpu_search import SQUARE, multiply_rate
from .gpu_timing import Call, Row, interleaved, rows

SHAPES = ((4096, 4096), (16384, 4096), (8192, 28672))
ROWS = (1, 4, 16, 64, 256, 4096)
"""Outputs and inputs; rows of activations."""
REHEARSAL_SHAPES, REHEARSAL_ROWS = ((48, 64),), (1, 20)
GRAPHED_ROWS, COMPILED_ROWS = 16, (1, 16)
ROTATED_BYTES = 1 << 29
TOLERANCE = 2e-2
BYTES = {"int8": 1, "e4m3fn": 1, "bfloat16": 2}
FMA, PACKED, INDUCTOR, TORCH = "pykernels int8, multiply-adds", "torch int8pack", "Inductor int8", "torch bfloat16"


def measure(gpu: bool) -> Iterator[list[Row]]:
    copying, multiplying, multiplying_fp8 = copy_rate(gpu), multiply_rate("bfloat16", gpu), _fp8_rate(gpu)
    for N, K in SHAPES if gpu else REHEARSAL_SHAPES:
        for M in ROWS if gpu else REHEARSAL_ROWS:
            calls, size = _weight_only(M, N, K, gpu)
            case = f"weight-only M={M}, N={N}, K={K}"
            yield _compare(case, calls, size, M, N, K, copying, multiplying, gpu)
            if M >= GRAPHED_ROWS:
                calls, size = _fp8(M, N, K, gpu)
                case = f"fp8 x fp8 M={M}, N={N}, K={K}"
                yield _compare(case, calls, size, M, N, K, copying, multiplying_fp8, gpu)


def _compare(
    case: str, calls: dict[str, list[Call]], size: dict[str, int], M: int, N: int, K: int, copying: float,
    multiplying: float, gpu: bool,
) -> list[Row]:  # fmt: skip
    """One call of each list against reading weights of `size` bytes, or multiplying if that takes longer."""
    chains = {name: _chain(each, gpu and M <= GRAPHED_ROWS) for name, each in calls.items()}
    seconds = {name: each / len(calls[name]) for name, each in interleaved(chains, gpu).items()}
    if 2.0 * M * N * K / multiplying > N * K * min(size.values()) / copying:
        operations = dict.fromkeys(calls, 2.0 * M * N * K)
        return rows("linear", case, seconds, operations, multiplying, f"a product at {multiplying / 1e12:.0f} Tops/s")
    moved = {name: float(N * K * size[name] + 2 * M * (N + K)) for name in calls}
    return rows("linear", case, seconds, moved, copying, f"a copy at {copying / 1e9:.0f} GB/s")


def _chain(calls: list[Call], graphed: bool) -> Call:
    if not graphed:
        return calls[0] if len(calls) == 1 else lambda: [call() for call in calls]
    import torch

    for call in calls:
        call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for call in calls:
            call()
    return graph.replay


def _fp8_rate(gpu: bool) -> float:
    """Operations per second of torch's product of large square matrices of e4m3fn."""
    import torch

    n = SQUARE if gpu else 64
    x = torch.ones(n, n, device="cuda" if gpu else "cpu").to(torch.float8_e4m3fn)
    one = torch.ones((), device=x.device)
    multiply: Call = functools.partial(torch._scaled_mm, x, x.T, one, one, out_dtype=torch.bfloat16)
    return 2.0 * n**3 / interleaved({"product": multiply}, gpu)["product"]


def _weight_only(M: int, N: int, K: int, gpu: bool) -> tuple[dict[str, list[Call]], dict[str, int]]:
    """A call for each copy of the weights, by provider, and bytes of a weight; ours agree with torch."""
    import torch

    from pykernels.kernels.linear import gpu as launchers
    from pykernels.kernels.linear.gpu_rows import rows as multiply_adds
    from pykernels.kernels.linear.problem import Problem

    device = "cuda" if gpu else "cpu"
    x = torch.randn(M, K, device=device).bfloat16()
    out = torch.empty(M, N, dtype=x.dtype, device=device)
    scale = torch.rand(N, 1, device=device) / 100
    calls: dict[str, list[Call]] = {}
    size: dict[str, int] = {}
    for format, each in BYTES.items():
        copies = _copies(format, N, K, ROTATED_BYTES // (N * K * each) + 1 if gpu and M <= GRAPHED_ROWS else 1, device)
        scales = None if format == "bfloat16" else scale
        problem = Problem(format, (1, K))
        ours = functools.partial(_ours, launchers.linear, x, scales, out, problem)
        values = copies[0].view(torch.float8_e4m3fn) if format == "e4m3fn" else copies[0]
        _agrees(f"{format}, {M} rows", ours, copies[0], out, x, values, scales)
        providers: dict[str, Any] = {f"pykernels {format}": ours}
        if format == "bfloat16":
            providers[TORCH] = functools.partial(_torch, x, out)
        elif format == "int8":
            if M == 1:
                providers[FMA] = functools.partial(_ours, multiply_adds, x, scales, out, problem)
            providers |= _int8_of_torch(x, copies[0], scale[:, 0].bfloat16(), gpu and M in COMPILED_ROWS)
        for name, provider in providers.items():
            calls[name], size[name] = [functools.partial(provider, w) for w in copies], each
    return calls, size


def _int8_of_torch(x: Any, w: Any, scale: Any, compiled: bool) -> dict[str, Any]:
    """Those of torch's ways that run here."""
    import torch

    def dequantize_and_multiply(x: Any, w: Any, scale: Any) -> Any:
        return torch.nn.functional.linear(x, w.to(x.dtype)) * scale

    providers = {PACKED: lambda w: torch._weight_int8pack_mm(x, w, scale)}
    if compiled:
        inductor = torch.compile(dequantize_and_multiply, dynamic=False)
        providers[INDUCTOR] = lambda w: inductor(x, w, scale)
    return {name: each for name, each in providers.items() if _runs(name, functools.partial(each, w))}


def _torch(x: Any, out: Any, w: Any) -> None:
    import torch

    torch.mm(x, w.T, out=out)


def _ours(launcher: Any, x: Any, scale: Any, out: Any, problem: Any, codes: Any) -> None:
    launcher(x, None, codes, scale, None, out, problem)


def _copies(format: str, N: int, K: int, count: int, device: str) -> list[Any]:
    import torch

    w = torch.randn(N, K, device=device)
    if format == "int8":
        w = (40 * w).round().clamp(-127, 127).to(torch.int8)
    else:
        w = w.to(torch.float8_e4m3fn).view(torch.uint8) if format == "e4m3fn" else w.bfloat16()
    return [w, *(w.clone() for _ in range(count - 1))]


def _fp8(M: int, N: int, K: int, gpu: bool) -> tuple[dict[str, list[Call]], dict[str, int]]:
    """Codes with scales of rows on both sides; with the conversion of x to them, and without it."""
    import torch

    from pykernels.kernels.fp8 import gpu as conversion
    from pykernels.kernels.fp8.formats import FORMATS, Recipe
    from pykernels.kernels.linear import gpu as launchers
    from pykernels.kernels.linear.problem import Problem

    device = "cuda" if gpu else "cpu"
    x = torch.randn(M, K, device=device).bfloat16()
    codes, x_scale = torch.empty(M, K, dtype=torch.uint8, device=device), torch.empty(1, M, 1, device=device)
    w = _copies("e4m3fn", N, K, ROTATED_BYTES // (N * K) + 1 if gpu and M <= GRAPHED_ROWS else 1, device)
    scale, out = torch.rand(N, 1, device=device) / 100, torch.empty(M, N, dtype=x.dtype, device=device)
    problem, recipe = Problem("e4m3fn", (1, K), None, "e4m3fn"), Recipe(FORMATS["e4m3fn"], (1, K))

    def multiply(right: Any) -> None:
        launchers.linear(codes, x_scale[0, :, 0], right, scale, None, out, problem)

    def convert_and_multiply(right: Any) -> None:
        conversion.quantize(x[None], codes[None], x_scale, recipe, True)
        multiply(right)

    def of_torch(right: Any) -> Any:
        left, right = codes.view(torch.float8_e4m3fn), right.view(torch.float8_e4m3fn).T
        return torch._scaled_mm(left, right, x_scale[0], scale.T, out_dtype=torch.bfloat16)

    convert_and_multiply(w[0])
    values = codes.view(torch.float8_e4m3fn).float() * x_scale[0]
    _agrees(f"fp8 x fp8, {M} rows", convert_and_multiply, w[0], out, values, w[0].view(torch.float8_e4m3fn), scale)
    providers: dict[str, Any] = {"pykernels": multiply, "pykernels, with casts": convert_and_multiply}
    if _runs("torch._scaled_mm", functools.partial(of_torch, w[0])):
        providers["torch._scaled_mm"] = of_torch
    calls: dict[str, list[Call]] = {
        name: [functools.partial(each, right) for right in w] for name, each in providers.items()
    }
    if M > GRAPHED_ROWS:
        calls[TORCH] = [functools.partial(_torch, x, out, w[0].view(torch.float8_e4m3fn).bfloat16())]
    return calls, {name: 2 if name == TORCH else 1 for name in calls}


def _agrees(what: str, call: Any, w: Any, out: Any, x: Any, values: Any, scale: Any) -> None:
    """Compare the first outputs with torch's, in float32."""
    call(w)
    some = slice(48)
    expected = x.float() @ values[some].float().T
    if scale is not None:
        expected *= scale[some, 0]
    if not (out[:, some].float() - expected).abs().max() <= TOLERANCE * expected.abs().max():
        raise ArithmeticError(f"linear disagrees with torch: {what}")


def _runs(name: str, call: Call) -> bool:
    try:
        call()
    except Exception as error:  # torch's kernels differ in the devices and shapes that they take
        print(f"linear: {name} does not run: {str(error).splitlines()[0]}", flush=True)
        return False
    return True
