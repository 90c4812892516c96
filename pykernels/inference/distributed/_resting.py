"""Matrices as a process keeps them, and as it multiplies with them."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch.distributed import ReduceOp

from ... import quant
from ..._arrays import Array
from ...quant import QuantizedTensor, linear
from ..plan.volumes import Layout
from ._sources import Source, read, scale_of
from ._torus import Torus

Tensor = torch.Tensor


class Resting(NamedTuple):
    """Rows and columns of a weight: numbers, or codes and the scales (rows, 1) of their rows."""

    values: Tensor
    scale: Tensor | None

    def whole(self) -> Any:
        return self.values if self.scale is None else QuantizedTensor(self.values, self.scale, "row")

    @property
    def nbytes(self) -> int:
        return self.values.nbytes + (0 if self.scale is None else self.scale.nbytes)


def rest(
    source: Source, name: str, index: tuple[Array, Array], torus: Torus, format: str | None = None, across: str = ""
) -> Resting:
    """What a process keeps of a weight, as it is or quantized to `format` row by row; rows are split over `across`."""
    stored = source.weight(name)
    values = read(stored, *index, source.dtype)
    if stored.scale is not None:
        return Resting(values.to(torus.device), scale_of(stored, index[0]).to(torus.device))
    values = values.to(torus.device)
    if format is None:
        return Resting(values, None)
    largest = torus.all_reduce(values.abs().amax(1, keepdim=True), across, "quantization", ReduceOp.MAX)
    narrow = quant.quantize(torch.cat([values, largest], 1), format, granularity="row")
    return Resting(narrow.codes[:, :-1].contiguous(), narrow.scale)


class Product:
    """``x w^T + bias`` with a matrix, or with the part of it that a layout gives a process."""

    def __init__(self, torus: Torus, layout: Layout, resting: Resting, inward: bool, bias: Tensor | None) -> None:
        self._torus, self._resting, self._inward, self._bias = torus, resting, inward, bias
        self._inner = "".join(axis for axis in "zy" if axis in layout.gathered)
        self._weight, self._scale = None, resting.scale
        if torus.extent(layout.gathered) == 1:
            self._weight = resting.whole()
        elif resting.scale is not None:
            self._scale = torus.all_gather(resting.scale, self._inner if inward else "x", "scales").reshape(-1, 1)

    def weight(self, where: str) -> Any:
        """The matrix in use: gathered, if the layout says so."""
        if self._weight is not None:
            return self._weight
        values = self._resting.values
        codes = values if self._scale is None else values.view(torch.uint8)
        grid = self._torus.all_gather(codes, "x" + self._inner, where)
        grid = grid.reshape(self._torus.extent("x"), -1, *codes.shape)
        rows = grid.permute(1, 2, 0, 3) if self._inward else grid.permute(0, 2, 1, 3)
        whole = rows.reshape(rows.shape[0] * rows.shape[1], -1).view(values.dtype)
        return Resting(whole, self._scale).whole()

    def __call__(self, x: Tensor, weight: Any) -> Tensor:
        out: Tensor = linear(x, weight, self._bias)
        return out


class Norm:
    """A norm of rows whose columns may be split: statistics are summed over the processes that have the others."""

    def __init__(self, kind: str, eps: float, width: int, weight: Tensor, bias: Tensor | None) -> None:
        """`weight` and `bias` are of this process's columns, without padding."""
        self._layer, self._eps, self._width = kind == "layer", eps, width
        self._weight, self._bias = weight, bias

    def __call__(self, torus: Torus, h: Tensor, axes: str, where: str) -> Tensor:
        x = h[:, : len(self._weight)].float()
        if self._layer:
            x = x - torus.all_reduce(x.sum(1, keepdim=True), axes, where) / self._width
        squares = torus.all_reduce(x.square().sum(1, keepdim=True), axes, where)
        x = x * torch.rsqrt(squares / self._width + self._eps) * self._weight
        if self._bias is not None:
            x = x + self._bias
        return torch.nn.functional.pad(x.to(h.dtype), (0, h.shape[1] - x.shape[1]))
