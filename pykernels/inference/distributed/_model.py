"""A decoder's layers in the layouts that a process runs them in."""

from __future__ import annotations

import numpy as np
import torch

from ..._arrays import Array
from .._attend import Attention, Kept, Rotation
from .._positions import RotaryTables
from ..plan.volumes import LAYOUTS, resting
from ._attend import Attend, Distribution, Rows
from ._block import Block
from ._placement import place
from ._resting import rest
from ._sources import Source
from ._tokens import Ends
from ._torus import Torus

Tensor = torch.Tensor


class Model:
    """The part that this process has of the decoder of a source, quantized to `format` or not."""

    def __init__(
        self, source: Source, torus: Torus, layouts: tuple[str, ...], attention: str, format: str | None
    ) -> None:
        """`layouts` keep weights alike, and caches."""
        config = self.config = source.config
        self._torus = torus
        placement = place(config, torus, attention)
        width, inner = resting(layouts[0])
        kept = {}
        for name in (f"layers.{i}.{kind}.weight" for i in range(config.layers) for kind in placement.matrices):
            matrix = placement.matrices[name.split(".")[2]]
            across = width if matrix.inward else inner
            kept[name] = rest(source, name, matrix.part(torus, width, inner), torus, format, across)
        self._ends = Ends(source, torus, placement, format)
        self.nbytes = sum(each.nbytes for each in (*kept.values(), *self._ends.kept.values()))
        self.where = {x: Distribution(config, torus, LAYOUTS[x], placement, attention) for x in layouts}
        self._blocks = {
            x: [Block(source, torus, LAYOUTS[x], placement, kept, i) for i in range(config.layers)] for x in layouts
        }
        self._tables = None
        if config.rotary_theta is not None:
            self._tables = RotaryTables(config.rotary_theta, config, torch.empty(0, device=torus.device))

    def logits(
        self, layout: str, tokens: Array, positions: Array, owners: Array, kept: Kept | None, last_only: bool
    ) -> Tensor:
        """Logits (n, T, V) or (n, V) of tokens (n, T), of sequences in the caches of `owners`."""
        where, (n, length), torus = self.where[layout], tokens.shape, self._torus
        if not tokens.size:
            return torch.zeros(n, *(() if last_only else (length,)), self.config.vocab, device=torus.device)
        rows = Rows.of(owners, torus.extent(where.axes))
        own = rows.own(torus.rank(where.axes))
        attention = Attention(where.local, (len(own), length), self._rotation(positions, own), kept)
        attend = Attend(where, rows, length, attention)
        order = rows.batch if where.gathers else np.arange(n)
        x = self._ends.embed(tokens[order], positions[order], where.layout)
        for block in self._blocks[layout]:
            x = block(x, attend)
        chosen = rows.slots if where.gathers else np.arange(n)
        if last_only:
            return self._ends.logits(x.reshape(-1, length, x.shape[1])[:, -1], chosen, where.layout)
        chosen = (chosen[:, None] * length + np.arange(length)).ravel()
        return self._ends.logits(x, chosen, where.layout).reshape(n, length, -1)

    def _rotation(self, positions: Array, own: Array) -> Rotation | None:
        if self._tables is None:
            return None
        tables = self._tables.reaching(int(positions.max()) + 1)
        return Rotation(*tables, torch.from_numpy(positions[own]).to(self._torus.device))
