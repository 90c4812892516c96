"""Linear layers without this library, as torch has them on a CPU: in full width, and with int8 weights.

All take x (M, K), codes (N, K) and scales (N, 1) as tensors, and return (M, N). What can be done to a weight once,
such as dequantizing it to be kept in full width, is done before.
"""

from __future__ import annotations

import functools
import importlib
import warnings
from typing import Any

from pykernels.bench.fp8_peers import absent as absent_torch
from pykernels.bench.harness import Call

FP32, BF16 = "torch fp32", "torch bf16"
PACKED, WIDENED = "int8pack", "dequantize, matmul"
INTEGER, FBGEMM = "_int_mm, scaled", "fbgemm dynamic"

WEIGHT_BYTES = {FP32: 4, BF16: 2}
"""Of an element, where it is not 1."""


@functools.cache
def absent() -> dict[str, str]:
    """Why a peer cannot run here."""
    if "torch" in absent_torch():
        return dict.fromkeys((FP32, BF16, PACKED, WIDENED, INTEGER, FBGEMM), absent_torch()["torch"])
    torch: Any = importlib.import_module("torch")
    if "fbgemm" not in torch.backends.quantized.supported_engines:
        return {FBGEMM: "this torch has no fbgemm"}
    return {}


def product(name: str, x: Any, codes: Any, scale: Any) -> Call:
    """The product of x and the dequantized weight."""
    torch: Any = importlib.import_module("torch")
    linear = torch.nn.functional.linear
    if name in (FP32, BF16):
        dtype = torch.float32 if name == FP32 else torch.bfloat16
        return functools.partial(linear, x.to(dtype), codes.float().mul_(scale).to(dtype))
    if name == PACKED:
        aligned = x.clone()  # it crashes if rows do not start at 64 bytes
        return functools.partial(torch._weight_int8pack_mm, aligned, codes, scale.flatten().to(x.dtype))
    if name == WIDENED:
        factor = scale.T.to(x.dtype)
        return lambda: linear(x, codes.to(x.dtype)).mul_(factor)
    return _by_integers(torch, x, codes, scale.T) if name == INTEGER else _fbgemm(torch, x, codes, scale)


def _by_integers(torch: Any, x: Any, codes: Any, scale: Any) -> Call:
    """Rows of x are quantized, and sums of products of integers scaled."""

    def run() -> Any:
        own = x.abs().amax(-1, keepdim=True).float() / 127
        narrow = (x / own).round_().to(torch.int8)
        return (torch._int_mm(narrow, codes.T) * own).mul_(scale).to(x.dtype)

    return run


def _fbgemm(torch: Any, x: Any, codes: Any, scale: Any) -> Call:
    """As torch.ao.nn.quantized.dynamic.Linear: x becomes seven bits and a zero point for all of it."""
    zeros = torch.zeros(len(codes), dtype=torch.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        weight = torch._make_per_channel_quantized_tensor(codes, scale.flatten().double(), zeros, 0)
        packed = torch.ops.quantized.linear_prepack(weight, None)
    return lambda: torch.ops.quantized.linear_dynamic(x.float(), packed, True).to(x.dtype)
