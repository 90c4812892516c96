"""Masks for models of Hugging Face transformers, written out only where a pattern has no other description.

A model hands its layers whatever tensor of four axes its mask function returns. Besides masks of bool or floating
point, which say everything themselves, these are compact ones, for causal and bidirectional patterns that end with
the last key at the last query:

- uint16 (B or 1, right + 2, left + 2, keys or 1): which keys take part, all of them if the last size is 1,
- uint32 (B, right + 2, left + 2, 1): how many keys each sequence has,

where `left` and `right` are those of the window, -1 for no limit, and nothing depends on the place along their axes,
which cost no memory. Arithmetic of these dtypes with others raises: a model that would combine masks cannot change
the meaning of one of these unnoticed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers.masking_utils import causal_mask_function, sdpa_mask
from transformers.utils.import_utils import is_tracing

Window = tuple[int, int]

EVERYWHERE: Window = (-1, -1)
CAUSAL: Window = (-1, 0)
KEYS, LENGTHS = torch.uint16, torch.uint32


def make_mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: int | Tensor = 0,
    kv_offset: int = 0,
    mask_function: Callable[..., Any] = causal_mask_function,
    attention_mask: Tensor | None = None,
    local_size: int | None = None,
    allow_is_causal_skip: bool = True,
    allow_is_bidirectional_skip: bool = False,
    device: torch.device | str = "cpu",
    config: Any = None,
    **options: Any,
) -> Tensor | None:
    """The mask of queries ``q_offset + i`` and keys ``kv_offset + j``; None if it is causal or says nothing.

    `attention_mask` (B, tokens) of bool says what is no padding; `local_size` is the size of the window, or of the
    chunks, that `mask_function` has. One of the "skips" is allowed if that function has no further terms and
    nobody but attention reads the mask.
    """
    causal = allow_is_causal_skip or _only_attention_reads(mask_function, config)
    window = None
    if causal or allow_is_bidirectional_skip:
        window = _window(causal, kv_offset, kv_length, local_size, config)
    if window is not None:
        end = kv_offset + kv_length
        if window == EVERYWHERE or (isinstance(q_offset, int) and q_offset + q_length == end):
            return _compact(window, _keys(attention_mask, kv_offset, end), batch_size, q_length, device)
        if causal and _all_seen(attention_mask, q_offset, q_length, kv_offset):
            seen = torch.as_tensor(q_offset + q_length - kv_offset, device=device)
            return _coded(seen.to(LENGTHS).expand(batch_size)[:, None], window)
    return sdpa_mask(  # type: ignore[no-any-return]
        batch_size=batch_size,
        q_length=q_length,
        kv_length=kv_length,
        q_offset=q_offset,
        kv_offset=kv_offset,
        mask_function=mask_function,
        attention_mask=attention_mask,
        allow_is_causal_skip=False,
        device=device,
        **options,
    )


def decoded(mask: Tensor) -> tuple[Window, Tensor | None, Tensor | None]:
    """Window, mask of keys (B or 1, 1, 1, keys) and lengths (B,) of a compact mask."""
    window = (mask.shape[2] - 2, mask.shape[1] - 2)
    first = mask[:, :1, :1]
    if mask.dtype is LENGTHS:
        return window, None, first[:, 0, 0, 0].long()
    return window, None if mask.shape[3] == 1 else first.bool(), None


def _only_attention_reads(mask_function: Callable[..., Any], config: Any) -> bool:
    """Falcon asks for complete masks for the sake of ALiBi, which it may not use."""
    falcon = getattr(config, "model_type", None) == "falcon"
    return falcon and not config.alibi and mask_function is causal_mask_function


def _window(causal: bool, kv_offset: int, kv_length: int, size: int | None, config: Any) -> Window | None:
    """The window of a pattern, or None for chunks."""
    if size is not None and causal and size == getattr(config, "attention_chunk_size", None):
        return CAUSAL if kv_offset + kv_length <= size else None
    if size is None or kv_length <= size:
        return CAUSAL if causal else EVERYWHERE
    return (size - 1, 0) if causal else (size, size)


def _all_seen(attention_mask: Tensor | None, q_offset: int | Tensor, q_length: int, kv_offset: int) -> bool:
    """Whether no key up to that of the last query is padding; False if values may not be read."""
    if attention_mask is None:
        return True
    return not is_tracing(attention_mask) and _keys(attention_mask, kv_offset, int(q_offset) + q_length) is None


def _keys(attention_mask: Tensor | None, start: int, end: int) -> Tensor | None:
    """Which of the keys from `start` to `end` are no padding, bool (B, keys); None for all, if values may be read."""
    if attention_mask is None:
        return None
    keys = attention_mask[:, start:end]
    if keys.shape[1] < end - start:
        keys = torch.nn.functional.pad(keys, (0, end - start - keys.shape[1]))
    return None if not is_tracing(keys) and bool(keys.all()) else keys


def _compact(
    window: Window, keys: Tensor | None, batch_size: int, q_length: int, device: torch.device | str
) -> Tensor | None:
    if keys is None:
        plain = window in (CAUSAL, EVERYWHERE)
        return None if plain else _coded(torch.ones((1, 1), dtype=KEYS, device=device), window)
    if window == EVERYWHERE and not is_tracing(keys) and not bool((keys[:, 1:] & ~keys[:, :-1]).any()):
        return _coded(keys.sum(1).to(LENGTHS).expand(batch_size)[:, None], window)
    if window == EVERYWHERE or (window == CAUSAL and q_length == 1):
        return keys[:, None, None]
    return _coded(keys.to(KEYS), window)


def _coded(values: Tensor, window: Window) -> Tensor:
    """The compact mask of `values` (B, keys or 1)."""
    left, right = window
    return values[:, None, None].expand(-1, right + 2, left + 2, -1)
