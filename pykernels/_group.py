"""A group of torch.distributed processes that raise errors together."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

_REFUSALS = (TypeError, ValueError, NotImplementedError, MemoryError, OSError)


@contextmanager
def reaching(ranks: Sequence[int], what: str) -> Iterator[None]:
    """Name the peers in the error of a collective that fails."""
    try:
        yield
    except RuntimeError as error:
        raise RuntimeError(
            f"{what} among processes {list(ranks)}: one of them has ended, or is late by more than the timeout of the"
            f" process group: {error}"
        ) from error


class Group:
    """This process and its peers; `rank` and `size` are those of the group, by default of all processes; `ranks`
    are the members' numbers among all processes, and `device` is where the group's collectives work."""

    def __init__(self, group: Any = None) -> None:
        try:
            import torch
            from torch import distributed
        except ModuleNotFoundError as error:
            raise NotImplementedError("torch is not installed here: expected it, for its torch.distributed") from error
        if not (distributed.is_available() and distributed.is_initialized()):
            raise ValueError("torch.distributed has no process group: expected a call of init_process_group before")
        self.rank, self.size = distributed.get_rank(group), distributed.get_world_size(group)
        if self.rank < 0:
            raise ValueError("group does not contain this process")
        self.ranks: list[int] = distributed.get_process_group_ranks(distributed.group.WORLD if group is None else group)
        self._group, self._torch = group, torch
        nccl = distributed.get_backend(group) == "nccl"
        self.device = torch.device("cuda", torch.cuda.current_device()) if nccl else torch.device("cpu")

    def gather(self, value: Any) -> list[Any]:
        """`value`, a NumPy array or tensor of one shape and dtype on all processes, of every process by rank."""
        torch = self._torch
        tensor = torch.from_numpy(value.view(np.uint8)) if isinstance(value, np.ndarray) else value.view(torch.uint8)
        tensor = tensor.to(self.device)
        parts = [torch.empty_like(tensor) for _ in range(self.size)]
        with reaching(self.ranks, "all_gather"):
            torch.distributed.all_gather(parts, tensor, group=self._group)
        if isinstance(value, np.ndarray):
            return [part.cpu().numpy().view(value.dtype) for part in parts]
        return [part.to(value.device).view(value.dtype) for part in parts]

    def agree(self, describe: Callable[[], tuple[int, dict[str, int]]]) -> list[int]:
        """The first number of every process, after checking that they agree on the named ones.

        `describe` checks this process's arguments. Where it raises an error, the others raise one too,
        rather than wait for this process.
        """
        refusal: Exception | None = None
        try:
            own, shared = describe()
        except _REFUSALS as error:
            refusal, own, shared = error, -1, {}
        values = np.array(list(shared.values()), np.int64)
        sizes, checksums = np.stack(self.gather(np.array([own, zlib.crc32(values.tobytes())], np.int64))).T
        if refusal is not None:
            raise refusal
        if sizes.min() < 0:
            raise RuntimeError(f"process {sizes.argmin()} of the group refused its arguments; see its error")
        if (checksums != checksums[0]).any():
            for name, column in zip(shared, np.stack(self.gather(values)).T, strict=True):
                if (column != column[0]).any():
                    raise ValueError(f"{name} differs between processes, {column.tolist()}: expected one value")
        return [int(size) for size in sizes]
