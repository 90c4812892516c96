"""Softmax attention of any grouping of heads: batches, ragged batches, caches, and blocks of images.

The definition of every operation is in `pykernels.kernels.attention`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._attention import attention as attention
    from ._cache import KVCache as KVCache
    from ._decode import decode as decode
    from ._halo import halo_attention as halo_attention
    from ._merge import merge as merge
    from ._transformers import register_with_transformers as register_with_transformers
    from ._varlen import attention_varlen as attention_varlen

_HOMES = {
    "KVCache": "_cache",
    "attention": "_attention",
    "attention_varlen": "_varlen",
    "decode": "_decode",
    "halo_attention": "_halo",
    "merge": "_merge",
    "register_with_transformers": "_transformers",
}
__all__ = [
    "KVCache",
    "attention",
    "attention_varlen",
    "decode",
    "halo_attention",
    "merge",
    "register_with_transformers",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
