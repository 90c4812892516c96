"""Adam, an element per lane: 28 bytes of each float32 element."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from .._triton import INTERPRETED, on_device_of
from .gpu_core import bounded

BLOCK = 1 << 14 if INTERPRETED else 1024


@triton.jit
def _adam_kernel(
    parameter_ptr, gradient_ptr, first_ptr, second_ptr, count, rate: tl.float64, beta1: tl.float64, beta2: tl.float64,
    less1: tl.float64, less2: tl.float64, whole1: tl.float64, whole2: tl.float64, epsilon: tl.float64,
    clip: tl.float64, BLOCK: tl.constexpr,
):  # fmt: skip
    """`less` is 1 - beta, and `whole` 1 - beta^step; the arithmetic is float64."""
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = i < count
    g = bounded(tl.load(gradient_ptr + i, mask=inside, other=0.0).to(tl.float64), -clip, clip)
    m = beta1 * tl.load(first_ptr + i, mask=inside, other=0.0).to(tl.float64) + less1 * g
    v = beta2 * tl.load(second_ptr + i, mask=inside, other=0.0).to(tl.float64) + less2 * g * g
    step = rate * (m / whole1) / (tl.sqrt(v / whole2) + epsilon)
    old = tl.load(parameter_ptr + i, mask=inside, other=0.0)
    tl.store(parameter_ptr + i, old - step.to(old.dtype), mask=inside)
    tl.store(first_ptr + i, m, mask=inside)
    tl.store(second_ptr + i, v, mask=inside)


def adam(
    parameter: torch.Tensor,
    gradient: torch.Tensor,
    first: torch.Tensor,
    second: torch.Tensor,
    rate: float,
    step: int,
    beta1: float,
    beta2: float,
    epsilon: float,
    clip: float,
) -> None:
    """Step number `step`, counted from 1, of flat arrays; `parameter`, `first` and `second` are updated."""
    count = parameter.numel()
    if count == 0:
        return
    with on_device_of(parameter):
        _adam_kernel[(triton.cdiv(count, BLOCK),)](
            parameter, gradient, first, second, count, float(rate), beta1, beta2, 1 - beta1, 1 - beta2,
            1 - beta1**step, 1 - beta2**step, epsilon, float(clip), BLOCK=BLOCK, num_warps=4,
        )  # fmt: skip
