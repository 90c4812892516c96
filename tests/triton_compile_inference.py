"""Launches of the kernels of inference, for `triton_compile_worker`; `dealt` are the cases of one target."""

from __future__ import annotations

import torch
import triton

from pykernels.kernels.attention import gpu as attention
from pykernels.kernels.attention.problem import Pages
from pykernels.kernels.decoder import gpu as decoder
from pykernels.kernels.decoder.problem import Gated, Norm, Rotary
from pykernels.kernels.linear import gpu as linear
from pykernels.kernels.linear.problem import Problem

LINEAR = (
    ("bfloat16", "int8", 1, None, "silu"),
    ("float16", "e4m3fn", 16, 128, None),
    ("int8", "int8", 16, None, "gelu"),
    ("float32", "int8", 2, 7, "relu"),
    ("bfloat16", "int8", 256, None, None),
    ("e4m3fn", "e4m3fn", 256, None, None),
    ("int8", "int8", 256, 512, None),
    ("float16", "e5m2", 256, 128, "gelu_tanh"),
    ("float16", "int8", 600, 128, None),
    ("bfloat16", "int8", 64, None, None),
    ("bfloat16", "e4m3fn", 32, None, None),
    ("float32", "e5m2fnuz", 2, None, None),
    ("bfloat16", "e4m3fn", 256, 128, None),
    ("e5m2", "e4m3fn", 256, 128, None),
    ("bfloat16", "bfloat16", 16, None, None),
    ("e4m3fn", "int8", 256, None, None),
    ("e4m3fn", "e5m2", 16, None, None),
    ("float32", "float32", 1, None, None),
    ("bfloat16", "e4m3fnuz", 600, None, None),
    ("int8", "int8", 32, 128, None),
)
"""x, w, rows of x, columns that have one scale (None: all), activation."""


def launch_linear(dealt: slice) -> None:
    """Few rows and many, of numbers and of codes; all is compiled of the first eight."""
    N = K = 4096
    for x_kind, format, M, C, activation in (LINEAR if dealt == slice(None) else LINEAR[:8])[dealt]:
        kinds = (getattr(torch, kind, torch.uint8) for kind in (x_kind, format))
        x, codes = (torch.zeros(*shape, dtype=kind) for shape, kind in zip(((M, K), (N, K)), kinds, strict=True))
        dynamic = not x.is_floating_point()
        scale = None if codes.is_floating_point() else torch.zeros(N, triton.cdiv(K, C or K))
        out = torch.zeros(M, N, dtype=torch.bfloat16 if dynamic else x.dtype)
        factors = torch.zeros(M) if dynamic else None, torch.zeros(N) if activation else None
        problem = Problem(format, (1, C or K), activation, x_kind if dynamic else None)
        linear.linear(x, factors[0], codes, scale, factors[1], out, problem)


def launch_decoder(dealt: slice) -> None:
    """Rows in registers and long ones, both orders of pairs, pages as they are and of codes; types take turns."""
    for turn, dtype in list(enumerate((torch.bfloat16, torch.float16, torch.float32, torch.bfloat16)))[dealt]:
        E, kind = (4096, 1 << 15)[turn % 2], ("rms", "layer")[turn // 2]
        x, weight = torch.zeros(2, E, dtype=dtype), torch.zeros(E)
        added = (x, x) if turn % 3 else (None, None)
        decoder.normalize(x, added[0], weight, weight if turn > 1 else None, added[1], x, Norm(kind, 1e-5))
        decoder.gated(x, torch.zeros(2, E // 2, dtype=dtype), Gated(("silu", "gelu", "gelu_tanh", "relu")[turn]))
        heads, turns = torch.zeros(2, 8, 3, 128, dtype=dtype), torch.zeros(9, 64 if turn % 2 else 32)
        where = torch.zeros(2, 2, 3, dtype=torch.int64)
        decoder.rotary(heads, turns, turns, where[0], torch.zeros_like(heads), Rotary(turn > 1))
        pool = torch.zeros(4, 8, 16, 128, dtype=(torch.int8, torch.uint8, dtype, torch.uint8)[turn])
        scale = None if pool.dtype == dtype else torch.zeros(4, 8, 16)
        attention.store(heads, heads, Pages(pool, pool, scale, scale), where)
