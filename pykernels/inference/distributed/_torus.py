"""This process's place in a torus of processes, and collectives along axes of it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import torch
from torch import distributed
from torch.distributed.device_mesh import DeviceMesh

from ..._group import Group, reaching
from ..._options import integer
from ..mesh._shards import Chips
from ..plan._numbers import positive

Tensor = torch.Tensor

# the names since torch 2.13, and those before
_all_gather = getattr(distributed, "all_gather_single", None) or distributed.all_gather_into_tensor
_reduce_scatter = getattr(distributed, "reduce_scatter_single", None) or distributed.reduce_scatter_tensor


class Torus:
    """X x Y x Z processes, (x, y, z) of them at (x Y + y) Z + z in the order of `peers`.

    Collectives take axes major to minor, and a name. What they stack, or what they scatter, is in the order of the
    processes along these axes. Each adds to `received` the bytes that this process must receive, which are those of
    `pykernels.inference.plan.volumes`. RuntimeError that names the collective and the processes where one fails, or
    takes longer than the timeout.
    """

    def __init__(self, peers: Group, torus: tuple[int, int, int], timeout: float) -> None:
        self.peers, self.torus, self.device = peers, torus, peers.device
        self.chips, self.chip = Chips(torus), peers.rank
        self.received: Counter[str] = Counter()
        self._timeout = timedelta(seconds=timeout)

    def rank(self, axes: str) -> int:
        return self.chips.rank(self.chip, axes)

    def extent(self, axes: str) -> int:
        return self.chips.extent(axes)

    def all_gather(self, x: Tensor, axes: str, where: str, sharing: int = 0) -> Tensor:
        """The tensors of the processes along `axes`, or of every `sharing` neighbours of them, stacked."""
        members = self._members(axes)
        if sharing:
            first = self.rank(axes) // sharing * sharing
            members = members[first : first + sharing]
        count = len(members)
        if count == 1:
            return x[None]
        out = x.new_empty(count, *x.shape)
        group, order = self._group(members)
        with reaching(group.ranks, f"all_gather ({where})"):
            _all_gather(_bytes(out).view(-1), _bytes(x.contiguous()).view(-1), group=group.handle)
        self.received[where] += (count - 1) * x.nbytes
        return _ordered(out, order)

    def reduce_scatter(self, x: Tensor, axes: str, where: str) -> Tensor:
        """The sum of the parts (K, ...) that the K processes have for this one.

        Gloo has no such collective before torch 2.8: parts are exchanged, and summed in float32.
        """
        if self.extent(axes) == 1:
            return x[0]
        if self.device.type == "cpu":
            return self.all_to_all(x, axes, axes, where).sum(0, dtype=torch.float32).to(x.dtype)
        group, order = self._group(self._members(axes))
        out, x = torch.empty_like(x[0]), _unordered(x, order).contiguous()
        with reaching(group.ranks, f"reduce_scatter ({where})"):
            _reduce_scatter(out, x, group=group.handle)
        self.received[where] += (len(x) - 1) * out.nbytes
        return out

    def all_reduce(self, x: Tensor, axes: str, where: str, operation: Any = distributed.ReduceOp.SUM) -> Tensor:
        """The sum of all tensors, or what another operation makes of them; `x` is overwritten."""
        count = self.extent(axes)
        if count == 1:
            return x
        group, _ = self._group(self._members(axes))
        x = x.contiguous()
        with reaching(group.ranks, f"all_reduce ({where})"):
            distributed.all_reduce(x, operation, group=group.handle)
        self.received[where] += 2 * (count - 1) * -(-x.numel() // count) * x.itemsize
        return x

    def all_to_all(self, x: Tensor, targets: str, sources: str, where: str) -> Tensor:
        """Send `x` (K, ...), a part for each process along the axes `targets`, which come in the order of `sources`."""
        count = self.extent(targets)
        if count == 1:
            return x
        group, to = self._group(self._members(targets))
        x = _unordered(x, to).contiguous()
        out = torch.empty_like(x)
        with reaching(group.ranks, f"all_to_all ({where})"):
            distributed.all_to_all_single(out, x, group=group.handle)
        self.received[where] += x.nbytes // count * (count - 1)
        return _ordered(out, self._group(self._members(sources))[1])

    def _members(self, axes: str) -> list[int]:
        return next(group for group in self.chips.groups(axes) if self.chip in group)

    def _group(self, members: Sequence[int]) -> tuple[_Subgroup, list[int]]:
        """The process group of some chips, and the ranks that these have in it."""
        ranks = [self.peers.ranks[chip] for chip in members]
        group = _subgroup(ranks, self._timeout)
        return group, [group.ranks.index(rank) for rank in ranks]


class _Subgroup:
    """A process group that its members make without the others, with a timeout of its own."""

    def __init__(self, ranks: list[int], timeout: timedelta) -> None:
        self.ranks, self.world = ranks, distributed.group.WORLD
        with reaching(ranks, "new_group"):
            self.handle = distributed.new_group(ranks, timeout=timeout, use_local_synchronization=True)


_subgroups: dict[tuple[tuple[int, ...], timedelta], _Subgroup] = {}


def _subgroup(ranks: Sequence[int], timeout: timedelta) -> _Subgroup:
    """The group of some processes; the same one for all decoders, as each costs connections and threads."""
    key = tuple(sorted(ranks)), timeout
    found = _subgroups.get(key)
    if found is None or found.world is not distributed.group.WORLD:
        found = _subgroups[key] = _Subgroup(list(key[0]), timeout)
    return found


def connect(mesh: Any, group: Any, timeout: float) -> Group:
    """The processes of a DeviceMesh, or of a group, with a timeout in seconds for what they do together."""
    timeout = positive("timeout", timeout, most=1e9)
    ranks = mesh.mesh.flatten().tolist() if isinstance(mesh, DeviceMesh) else Group(group).ranks
    return Group(_subgroup(ranks, timedelta(seconds=timeout)).handle)


def sizes(mesh: Any, count: int) -> tuple[int, int, int]:
    """X, Y and Z of a mesh of `count` processes."""
    if isinstance(mesh, DeviceMesh):
        given = tuple(mesh.mesh.shape)
        ranks = mesh.mesh.flatten().tolist()
        if len(given) > 3 or ranks != sorted(ranks):
            raise ValueError(f"mesh={mesh}: expected at most three dimensions X, Y and Z, and ascending ranks")
        given += (1,) * (3 - len(given))
    elif isinstance(mesh, Sequence) and not isinstance(mesh, str) and len(mesh) == 3:
        given = tuple(integer(f"mesh axis {axis}", size, 1) for axis, size in zip("XYZ", mesh, strict=True))
    else:
        raise TypeError(f"mesh={mesh!r}: expected a DeviceMesh, or sizes (X, Y, Z)")
    if math.prod(given) != count:
        raise ValueError(f"mesh={given} has {math.prod(given)} chips: expected {count}, as the group has processes")
    return given[0], given[1], given[2]


def _bytes(x: Tensor) -> Tensor:
    return x.view(torch.uint8)


def _ordered(x: Tensor, order: list[int]) -> Tensor:
    return x if order == sorted(order) else x[order]


def _unordered(x: Tensor, order: list[int]) -> Tensor:
    """What `_ordered` makes `x` of."""
    return x if order == sorted(order) else x[sorted(range(len(order)), key=order.__getitem__)]
