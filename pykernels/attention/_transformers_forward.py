"""Attention as layers of Hugging Face transformers call it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ._attention import attention
from ._transformers_masks import KEYS, LENGTHS, decoded

_REFUSED = {
    "output_attentions": "attention weights are never formed",
    "head_mask": "heads cannot be masked",
    "cache": "continuous batching is not supported",
}


def attention_forward(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    is_causal: bool | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    position_bias: Tensor | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Output (B, Sq, Hq, Dv), contiguous, of `query` (B, Hq, Sq, D), `key` (B, Hkv, Sk, D), `value` (B, Hkv, Sk, Dv).

    `attention_mask` is one of `make_mask`, or (B or 1, Hq or 1, Sq or 1, Sk): bool, True for keys to attend to, or
    floating point to be added to the logits. Without one, keys are limited by `is_causal`, or by the module's.
    """
    if dropout or options:
        _check(dropout, options)
    if query.shape[0] != key.shape[0]:
        query = query.expand(key.shape[0], -1, -1, -1)
    causal, window, mask, lengths, bias = False, None, None, None, position_bias
    if attention_mask is None:
        limited = getattr(module, "is_causal", True) if is_causal is None else is_causal
        causal = limited and query.shape[2] > 1
    elif attention_mask.dim() != 4:
        raise ValueError(
            f"attention_mask has shape {tuple(attention_mask.shape)}: expected 4 axes (batch, heads, queries, keys)"
        )
    elif attention_mask.dtype is torch.bool:
        mask = attention_mask
    elif attention_mask.dtype in (KEYS, LENGTHS):
        (left, right), mask, lengths = decoded(attention_mask)
        causal = right == 0
        window = None if left < 0 else (left, right)
    else:
        bias = attention_mask if bias is None else bias + attention_mask
    out = attention(
        query,
        key,
        value,
        causal=causal,
        scale=scaling,
        window=window,
        softcap=softcap,
        sinks=s_aux,
        bias=bias,
        mask=mask,
        kv_lengths=lengths,
    )
    return out.transpose(1, 2).contiguous(), None


def _check(dropout: float, options: dict[str, Any]) -> None:
    if dropout:
        raise NotImplementedError(
            f"dropout={dropout}: attention weights cannot be dropped out; set the dropout of attention to 0 in the "
            "model's configuration, or its attn_implementation to 'eager'"
        )
    for name, why in _REFUSED.items():
        if options.get(name) is not None and options[name] is not False:
            raise NotImplementedError(f"{name}: {why}; set the model's attn_implementation to 'eager'")
