"""Tokens at both ends of a decoder whose vocabulary is split over processes."""

from __future__ import annotations

import numpy as np
import torch

from ..._arrays import Array
from ..._arrays_torch import dtype_of
from ...quant import QuantizedTensor, linear
from .._block import Normalization
from .._config import Config
from .._weights import shapes
from ..plan.volumes import Layout
from ._placement import Placement
from ._resting import Resting, rest
from ._sources import Source, vector
from ._torus import Torus

Tensor = torch.Tensor


class Ends:
    """Embedding and head: each process has the rows of some tokens, and of some learned positions.

    An embedding is a sum over processes, of which one has the row; it is scattered as the residual stream is split. For
    logits the stream is gathered, every process multiplies it with its rows, and the logits are gathered.
    """

    def __init__(self, source: Source, torus: Torus, placement: Placement, format: str | None) -> None:
        config = source.config
        self._torus, self._config, self._dtype = torus, config, dtype_of(source.dtype)
        self._width = len(placement.width)
        self.kept: dict[str, Resting] = {}
        for name in ("embedding", "positions", "head.weight"):
            if name in shapes(config):
                first, count = _share(shapes(config)[name][0], torus)
                rows = np.arange(first, first + count)
                rows[rows >= shapes(config)[name][0]] = -1
                quantized = format if name == ("embedding" if config.tied else "head.weight") else None
                self.kept[name] = rest(source, name, (rows, np.arange(config.width)), torus, quantized)
        norm = {f"norm.{part}": vector(source.weight(f"final_norm.{part}")).to(torus.device) for part in _parts(config)}
        self._norm = Normalization(config, norm, "norm")
        self._head = self.kept["embedding" if config.tied else "head.weight"].whole()

    def embed(self, tokens: Array, positions: Array, layout: Layout) -> Tensor:
        """The residual stream (T, E_ef) of tokens (R, L) at positions (R, L), on every process those of all."""
        x = self._rows("embedding", tokens)
        if self._config.embedding_scale != 1:
            x = x * torch.tensor(self._config.embedding_scale, dtype=self._dtype)
        if "positions" in self.kept:
            x = x + self._rows("positions", positions)
        x = torch.nn.functional.pad(x, (0, self._width - x.shape[1]))
        gathered, contracted, spread = layout
        rows, columns = self._torus.extent(gathered), self._torus.extent(contracted + spread)
        parts = x.reshape(rows, len(x) // rows, columns, -1).permute(0, 2, 1, 3).flatten(0, 1)
        return self._torus.reduce_scatter(parts, gathered + contracted + spread, "embedding")

    def logits(self, residual: Tensor, chosen: Array, layout: Layout) -> Tensor:
        """float32 logits (M, V), on all processes, of the chosen ones of all rows of the stream."""
        gathered, contracted, spread = layout
        parts = self._torus.all_gather(residual, gathered + contracted + spread, "head")
        parts = parts.reshape(self._torus.extent(gathered), -1, *residual.shape).permute(0, 2, 1, 3)
        x = parts.reshape(-1, self._width)[:, : self._config.width]
        x = x[torch.from_numpy(chosen)]
        own = linear(self._norm(x, None)[1], self._head, out_dtype="float32")
        whole = self._torus.all_gather(own, "xyz", "logits").permute(1, 0, 2)
        return whole.reshape(len(chosen), -1)[:, : self._config.vocab]

    def _rows(self, name: str, index: Array) -> Tensor:
        """Rows of a table, zeros where another process has them."""
        values, scale = self.kept[name]
        first, count = _share(shapes(self._config)[name][0], self._torus)
        own = torch.from_numpy(np.clip(index.ravel() - first, 0, count - 1)).to(values.device)
        mine = torch.from_numpy((index.ravel() >= first) & (index.ravel() < first + count)).to(values.device)
        if scale is None:
            x = values[own]
        else:
            x = QuantizedTensor(values[own], scale[own], "row").dequantize(self._dtype)
        return x * mine[:, None]


def _share(size: int, torus: Torus) -> tuple[int, int]:
    """The rows of a table that a process keeps: the first, and how many, the last of which may be padding."""
    count = -(-size // torus.chips.count)
    return torus.chip * count, count


def _parts(config: Config) -> tuple[str, ...]:
    return ("weight", "bias") if config.norm == "layer" else ("weight",)
