"""A block of a decoder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .._arrays import namespace
from ..kernels.decoder.problem import Norm
from ..quant import linear
from ._config import Config
from ._kernels import gated, normalize


class Product:
    """``x w^T + bias``, and an activation."""

    def __init__(self, weights: Mapping[str, Any], name: str, activation: str | None = None) -> None:
        self.weight, self.activation = weights[f"{name}.weight"], activation
        self.bias = wide(weights, f"{name}.bias")

    def __call__(self, x: Any) -> Any:
        return linear(x, self.weight, self.bias, activation=self.activation)


class Normalization:
    """The norm of rows, or of their sum with those of a residual, and that sum."""

    def __init__(self, config: Config, weights: Mapping[str, Any], name: str) -> None:
        self.norm = Norm(config.norm, config.norm_eps, config.norm_offset)
        self.weight, self.bias = wide(weights, f"{name}.weight"), wide(weights, f"{name}.bias")

    def __call__(self, x: Any, residual: Any) -> tuple[Any, Any]:
        return normalize(x, self.weight, self.bias, self.norm, residual)


class Block:
    """Layer `number` of a decoder, on rows of its residual stream.

    The stream is a pair (x, residual) that is yet to be added, which the next norm does; residual may be None.
    """

    def __init__(self, config: Config, weights: Mapping[str, Any], number: int) -> None:
        layer = f"layers.{number}."
        self.number = number
        self.gate = config.activation if config.gated else None
        self.attention_norm = Normalization(config, weights, f"{layer}attention_norm")
        self.feedforward_norm = None
        if config.block == "serial":
            self.feedforward_norm = Normalization(config, weights, f"{layer}feedforward_norm")
        self.qkv = Product(weights, f"{layer}qkv")
        self.output = Product(weights, f"{layer}output")
        self.up = Product(weights, f"{layer}up", None if config.gated else config.activation)
        self.down = Product(weights, f"{layer}down")

    def __call__(self, x: Any, residual: Any, attend: Callable[[int, Any], Any]) -> tuple[Any, Any]:
        """The stream after this block; ``attend(number, qkv)`` is the attention of rows (M, (Hq + 2 Hkv) * D)."""
        total, normed = self.attention_norm(x, residual)
        attended = self.output(attend(self.number, self.qkv(normed)))
        if self.feedforward_norm is None:
            return attended + self._feedforward(normed), total
        total, normed = self.feedforward_norm(attended, total)
        return self._feedforward(normed), total

    def _feedforward(self, x: Any) -> Any:
        x = self.up(x)
        return self.down(x if self.gate is None else gated(x, self.gate))


def wide(weights: Mapping[str, Any], name: str) -> Any:
    """A vector in float32, as the kernels take norms and biases; None if there is none."""
    if name not in weights:
        return None
    return namespace(weights[name])[1].cast(weights[name], "float32")
