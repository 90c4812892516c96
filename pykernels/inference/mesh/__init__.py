"""A mesh of virtual chips in one process: the layouts of `pykernels.inference.plan.volumes`, run with real numbers.

Every chip has arrays of its own and computes on nothing else; collectives copy pieces from chip to chip and count the
bytes of each. `prove` shows that every layout gives the unpartitioned block's output, and that what was counted is what
the closed forms say.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._block import run_block as run_block
    from ._cache import Cache as Cache
    from ._mesh import Mesh as Mesh
    from ._plain import plain_block as plain_block
    from ._report import Report as Report
    from ._report import prove as prove
    from ._shards import Sharded as Sharded
    from ._weights import place as place
    from ._weights import random_weights as random_weights

_HOMES = {
    "Cache": "_cache",
    "Mesh": "_mesh",
    "Report": "_report",
    "Sharded": "_shards",
    "place": "_weights",
    "plain_block": "_plain",
    "prove": "_report",
    "random_weights": "_weights",
    "run_block": "_block",
}
__all__ = ["Cache", "Mesh", "Report", "Sharded", "place", "plain_block", "prove", "random_weights", "run_block"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
