"""A group of torch.distributed processes, and the two collectives that sharded searches need."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

_REFUSALS = (TypeError, ValueError, NotImplementedError)


class Group:
    """This process and its peers; `rank` and `size` are those of the group, by default of all processes."""

    def __init__(self, group: Any = None) -> None:
        try:
            import torch
            from torch import distributed
        except ModuleNotFoundError as error:
            raise NotImplementedError("sharded search needs torch, which is not installed here") from error
        if not (distributed.is_available() and distributed.is_initialized()):
            raise ValueError("torch.distributed has no process group: expected a call of init_process_group before")
        self.rank, self.size = distributed.get_rank(group), distributed.get_world_size(group)
        if self.rank < 0:
            raise ValueError("group does not contain this process")
        self._group, self._torch = group, torch
        nccl = distributed.get_backend(group) == "nccl"
        self._device = torch.device("cuda", torch.cuda.current_device()) if nccl else torch.device("cpu")

    def gather(self, value: Any) -> list[Any]:
        """`value`, a NumPy array or tensor of one shape and dtype on all processes, of every process by rank."""
        torch = self._torch
        tensor = torch.from_numpy(value.view(np.uint8)) if isinstance(value, np.ndarray) else value.view(torch.uint8)
        tensor = tensor.to(self._device)
        parts = [torch.empty_like(tensor) for _ in range(self.size)]
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
        sizes = np.concatenate(self.gather(np.array([own], np.int64)))
        if refusal is not None:
            raise refusal
        if sizes.min() < 0:
            raise RuntimeError(f"process {sizes.argmin()} of the group refused its arguments; see its error")
        values = np.stack(self.gather(np.array(list(shared.values()), np.int64)))
        for name, column in zip(shared, values.T, strict=True):
            if (column != column[0]).any():
                raise ValueError(f"{name} differs between processes, {column.tolist()}: expected one value")
        return [int(size) for size in sizes]
