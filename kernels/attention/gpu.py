"""Triton launchers, with the names and signatures of `reference`, for torch tensors of any strides but the last, 1."""

from __future__ import annotations

import torch

from .gpu_backward import attention_backward
from .gpu_decode import decode, in_chunks
from .gpu_forward import launch
from .gpu_halo import halo
from .gpu_halo_backward import halo_backward
from .gpu_store import store
from .problem import Lengths, Scoring

__all__ = ["attention", "attention_backward", "decode", "halo", "halo_backward", "store"]

FEW_ROWS = 64
"""Query rows of a group below which reading the keys is the limit, and a program for all keys of a head too few."""


def attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    scoring: Scoring,
    lengths: Lengths,
    out: torch.Tensor,
    lse: torch.Tensor,
) -> None:
    """Attention of all sequences and heads into `out`, and the logarithms of the denominators into `lse`."""
    if lengths.cu_q is None and q.shape[2] * q.shape[1] <= FEW_ROWS * k.shape[1]:
        in_chunks(q, k, v, scoring, lengths.kv, None, k.shape[2], out, lse)
    else:
        launch(q, k, v, scoring, lengths, None, k.shape[2], out, lse)
