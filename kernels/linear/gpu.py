"""Triton launcher, with the name and signature of `reference`, for torch tensors.

Few rows of x are a matter of reading w once, at the rate of the memory; many of multiplying, where making w wide
costs 5 bytes of traffic per code against 2 M operations. See `gpu_tile`, `gpu_rows` and `gpu_large`.
"""

from __future__ import annotations

import torch

from .gpu_core import dot_of, is_whole
from .gpu_large import dequantized, scaled
from .gpu_rows import rows
from .gpu_tile import FEW_ROWS, INTEGER_SUM, MOST_SPLITS, piece_of, tiles
from .problem import Problem

ROWS = 8
"""Rows of x up to which multiply-adds of w as it is read cost less than a matrix of wide w."""
LARGE = 512
"""Rows of x from which a matrix of wide w, which torch multiplies at its best rate, costs less than what tiles lose."""
LARGE_FP8 = 128
"""The same of codes with codes, which stay as they are."""


def linear(
    x: torch.Tensor, x_scale: torch.Tensor | None, codes: torch.Tensor, scale: torch.Tensor | None,
    bias: torch.Tensor | None, out: torch.Tensor, problem: Problem,
) -> None:  # fmt: skip
    """See `Problem`."""
    (M, K), C = x.shape, problem.block[1]
    if out.numel() == 0:
        return
    scale = scale if K else None  # which has no elements then
    given = x, x_scale, codes, scale, bias, out, problem
    dot, whole = dot_of(x, codes, problem), is_whole(x, scale, problem)
    tileable = dot is not None and K > 0 and piece_of(scale, whole, problem) >= 32
    if problem.x_format is not None:
        integers = problem.x_format == problem.format == "int8"
        if not tileable or (integers and (K / MOST_SPLITS if whole else C) > INTEGER_SUM):
            rows(*given)
        elif M <= LARGE_FP8 or not scaled(*given):
            tiles(*given, dot)
        return
    most = FEW_ROWS if scale is None and codes.dtype == x.dtype else LARGE
    if K == 0 or (not tileable and M <= ROWS):
        rows(*given)
    elif tileable and most >= M:
        tiles(*given, dot)
    else:
        dequantized(x, codes, scale, bias, out, problem)
