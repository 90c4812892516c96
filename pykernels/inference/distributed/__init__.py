"""Decoders on several processes: the layouts of `pykernels.inference.plan.volumes`, on torch.distributed.

Every process is a chip of a torus X x Y x Z and calls the same functions with the same arguments. Gloo connects
processes on CPUs, NCCL those with a GPU each::

    torchrun --nproc-per-node 4 -m pykernels.inference.distributed \\
        --checkpoint DIR --mesh 2x2x1 --layout ws2d --attention batch --prompt 1,2,3 --new-tokens 16
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._cache import ShardedCache as ShardedCache
    from ._decoder import ShardedDecoder as ShardedDecoder

_HOMES = {"ShardedCache": "_cache", "ShardedDecoder": "_decoder"}
__all__ = ["ShardedCache", "ShardedDecoder"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
