"""A spawned process of a test in a group of processes, with Gloo."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import distributed


def join(rank: int, size: int, folder: str) -> None:
    """Become process `rank` of `size`, which meet in a folder."""
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store{size}", rank=rank, world_size=size)
    torch.set_num_threads(1)


@contextmanager
def joined(rank: int, size: int, folder: str) -> Iterator[None]:
    """Be that process for a while; what is raised is printed too, as `spawn` shows what one process raised."""
    join(rank, size, folder)
    try:
        yield
    except BaseException:
        traceback.print_exc()
        raise
    finally:
        distributed.destroy_process_group()
