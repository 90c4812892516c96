"""A block of a decoder, partitioned: the steps and collectives of `pykernels.inference.mesh`, in one process."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.nn import functional

from .._config import Config
from .._kernels import gated
from ..plan.volumes import Layout
from ._placement import Placement, in_use
from ._resting import Norm, Product, Resting
from ._sources import Source, vector
from ._torus import Torus

Tensor = torch.Tensor
Attend = Callable[[int, Tensor], Tensor]

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": functional.relu,
    "silu": functional.silu,
    "gelu": functional.gelu,
    "gelu_tanh": partial(functional.gelu, approximate="tanh"),
}


class Block:
    """Layer `number` of a decoder in a layout, on a process's part of the residual stream.

    That is (T, E_ef): T tokens, of the batch split over the gathered axes, and the width split over the contracted
    and spread ones. Inner columns are (T, P, c), of the P blocks that `_placement` tells of.
    """

    def __init__(
        self,
        source: Source,
        torus: Torus,
        layout: Layout,
        placement: Placement,
        resting: dict[str, Resting],
        number: int,
    ) -> None:
        self._torus, self._axes, self._config, self._number = torus, layout, source.config, number
        names = ["attention_norm"] if source.config.block == "parallel" else ["attention_norm", "feedforward_norm"]
        self._norms = [self._norm(source, placement, name) for name in names]
        self._products = {}
        for name, matrix in placement.matrices.items():
            bias = None
            added_by = layout.contracted if matrix.inward else layout.spread
            biased = {"qkv": source.config.qkv_bias, "output": source.config.output_bias}
            if biased.get(name, source.config.feedforward_bias) and torus.rank(added_by) == 0:
                rows = torch.from_numpy(in_use(matrix, torus, layout)[0])
                whole = vector(source.weight(f"layers.{number}.{name}.bias"))
                bias = torch.where(rows >= 0, whole[rows], 0.0).to(torus.device)
            self._products[name] = Product(
                torus, layout, resting[f"layers.{number}.{name}.weight"], matrix.inward, bias
            )

    def __call__(self, residual: Tensor, attend: Attend) -> Tensor:
        """The stream after this block; ``attend(number, columns)`` is the attention of (T, P, c), (T, P * c)."""
        if len(self._norms) == 1:
            h, used = self._enter(residual, "", 0, ["qkv", "up", "output", "down"])
            qkv, up = self._project(h, used, ["qkv", "up"], "qkv and up")
            inner = {"output": attend(self._number, qkv), "down": self._activated(up)}
            return self._leave(residual, inner, used, "output and down", "")
        h, used = self._enter(residual, "attention ", 0, ["qkv", "output"])
        (qkv,) = self._project(h, used, ["qkv"], "qkv")
        residual = self._leave(residual, {"output": attend(self._number, qkv)}, used, "output", "attention ")
        h, used = self._enter(residual, "feedforward ", 1, ["up", "down"])
        (up,) = self._project(h, used, ["up"], "up")
        return self._leave(residual, {"down": self._activated(up)}, used, "down", "feedforward ")

    def _enter(self, residual: Tensor, prefix: str, norm: int, names: list[str]) -> tuple[Tensor, dict[str, Any]]:
        """The normalised input (T, E_e), and the weights in use."""
        weights = {name: self._products[name].weight(f"{prefix}weights") for name in names}
        parts = self._torus.all_gather(residual, self._axes.spread, f"{prefix}input")
        h = parts.permute(1, 0, 2).reshape(len(residual), -1)
        return self._norms[norm](self._torus, h, self._axes.contracted, f"{prefix}norm"), weights

    def _project(self, h: Tensor, weights: dict[str, Any], names: list[str], where: str) -> list[Tensor]:
        """Products with matrices E_e F_f, summed over e, in blocks (T, P, c)."""
        axes = self._axes.contracted
        blocks = self._torus.extent(axes + self._axes.gathered)
        products = [self._products[name](h, weights[name]).reshape(len(h), blocks, -1) for name in names]
        if self._torus.extent(axes) == 1:
            return products
        own = self._torus.reduce_scatter(torch.cat(products, 2).permute(1, 0, 2), axes, where)
        return [part[:, None] for part in torch.split_with_sizes(own, [product.shape[2] for product in products], 1)]

    def _activated(self, up: Tensor) -> Tensor:
        tokens = len(up)
        if not self._config.gated:
            return ACTIVATIONS[self._config.activation](up.reshape(tokens, -1))
        active: Tensor = gated(up.reshape(-1, up.shape[2]), self._config.activation)
        return active.reshape(tokens, -1)

    def _leave(
        self, residual: Tensor, inner: dict[str, Tensor], weights: dict[str, Any], where: str, prefix: str
    ) -> Tensor:
        """The stream and the products with matrices F_f E_e, summed over f."""
        torus, (_, contracted, spread) = self._torus, self._axes
        own = list(inner.values())
        whole = torus.all_gather(own[0] if len(own) == 1 else torch.cat(own, 1), contracted, where)
        parts = torch.split_with_sizes(whole.permute(1, 0, 2), [part.shape[1] for part in own], 2)
        products = [
            self._products[name](part.reshape(len(residual), -1), weights[name])
            for name, part in zip(inner, parts, strict=True)
        ]
        total = products[0] if len(products) == 1 else products[0] + products[1]
        split = total.reshape(len(residual), torus.extent(spread), -1).permute(1, 0, 2)
        return residual + torus.reduce_scatter(split, spread, f"{prefix}sum")

    def _norm(self, source: Source, placement: Placement, name: str) -> Norm:
        config: Config = source.config
        axes, torus, name = self._axes.contracted, self._torus, f"layers.{self._number}.{name}"
        count = len(placement.width) // torus.extent(axes)
        first = torus.rank(axes) * count
        own = slice(first, min(first + count, config.width))
        weight = (vector(source.weight(f"{name}.weight")) + config.norm_offset)[own].to(torus.device)
        bias = None
        if config.norm == "layer":
            bias = vector(source.weight(f"{name}.bias"))[own].to(torus.device)
        return Norm(config.norm, config.norm_eps, config.width, weight, bias)
