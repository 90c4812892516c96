"""Config."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from numbers import Integral, Real
from typing import Any

from .. import _options
from ..kernels.linear.problem import ACTIVATIONS


@dataclass(frozen=True)
class RotaryScaling:
    """How rotary frequencies are lowered for contexts longer than those of training.

    Attributes
    ----------
    factor : what frequencies are divided by, at least 1
    low, high, original_length : None for all frequencies ("linear"); or, of "llama3", frequencies of at most `low`
        turns in `original_length` tokens are divided, those of at least `high` are kept, and between them the two are
        mixed in proportion to the turns
    """

    factor: float
    low: float | None = None
    high: float | None = None
    original_length: int | None = None

    def __post_init__(self) -> None:
        _number("factor", self.factor, 1)
        bounds = (self.low, self.high, self.original_length)
        if any(bound is None for bound in bounds) and bounds != (None, None, None):
            raise ValueError(f"low, high, original_length={bounds}: expected all three, or none")
        if self.low is not None and self.high is not None and self.original_length is not None:
            _number("low", self.low, 0)
            _number("high", self.high, 0)
            _options.integer("original_length", self.original_length, 1)
            if not self.low < self.high:
                raise ValueError(f"low={self.low!r} and high={self.high!r}: expected low < high")


@dataclass(frozen=True)
class Config:
    """The architecture of a decoder.

    With n and m the norms of a layer, and FFN(z) = down f(up z), or down (f(gate z) * (up z)) if `gated`::

        serial     h = x + Attention(n(x));  y = h + FFN(m(h))
        parallel   y = x + Attention(n(x)) + FFN(n(x))         (as GPT-J and PaLM, arXiv 2204.02311)

    Attributes
    ----------
    vocab, layers, width, hidden : tokens V, blocks, the width E of the residual stream, the width F of the feedforward
    heads, kv_heads, head_dim : query heads Hq; heads of keys and values Hkv, which divides them (1: multi-query,
        arXiv 1911.02150; between: grouped-query, arXiv 2305.13245); D of each
    block : "serial" or "parallel"
    gated : whether the feedforward has a gate (arXiv 2002.05202)
    activation : f, "silu", "gelu", "gelu_tanh" or "relu"
    norm, norm_eps, norm_offset : "rms" or "layer"; what is added to the mean square; what is added to norm weights,
        which Gemma keeps around 0
    rotary_theta, rotary_scaling : None for no rotary positions (arXiv 2104.09864), or the base of their frequencies,
        pairs being i and i + D / 2; and None or how the frequencies are scaled
    learned_positions : 0, or how many positions have an embedding, which is added to that of the token
    window : None, or how many keys a query reads, its own included
    embedding_scale : what embeddings are multiplied by, rounded to their dtype (Gemma: E ** 0.5)
    tied : whether the head, which gives logits, is the embedding
    qkv_bias, output_bias, feedforward_bias : whether the products have a bias. Layer norms always have one
    max_length : how many tokens a sequence may have

    Raises TypeError and ValueError that name the field.

    Examples
    --------
    >>> from pykernels.inference import Config
    >>> palm_8b = Config(
    ...     vocab=256_000, layers=32, width=4096, hidden=16_384, heads=16, kv_heads=1, head_dim=256, block="parallel"
    ... )
    >>> round(palm_8b.parameters / 1e9, 2)
    8.63
    """

    vocab: int
    layers: int
    width: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    block: str = "serial"
    gated: bool = True
    activation: str = "silu"
    norm: str = "rms"
    norm_eps: float = 1e-6
    norm_offset: float = 0.0
    rotary_theta: float | None = 10_000.0
    rotary_scaling: RotaryScaling | None = None
    learned_positions: int = 0
    window: int | None = None
    embedding_scale: float = 1.0
    tied: bool = True
    qkv_bias: bool = False
    output_bias: bool = False
    feedforward_bias: bool = False
    max_length: int = 4096

    def __post_init__(self) -> None:
        for name in ("vocab", "layers", "width", "hidden", "heads", "kv_heads", "head_dim", "max_length"):
            _options.integer(name, getattr(self, name), 1)
        if self.heads % self.kv_heads:
            raise ValueError(f"kv_heads={self.kv_heads}: expected a divisor of heads={self.heads}")
        _options.choice("block", self.block, ("serial", "parallel"))
        _options.choice("activation", self.activation, ACTIVATIONS)
        _options.choice("norm", self.norm, ("rms", "layer"))
        for field in fields(self):
            if field.type == "bool" and not isinstance(getattr(self, field.name), bool):
                raise TypeError(f"{field.name}={getattr(self, field.name)!r}: expected True or False")
        _number("norm_eps", self.norm_eps, 0)
        _number("norm_offset", self.norm_offset, -math.inf)
        _number("embedding_scale", self.embedding_scale, -math.inf)
        if self.window is not None:
            _options.integer("window", self.window, 1)
        self._check_positions()

    def _check_positions(self) -> None:
        _options.integer("learned_positions", self.learned_positions, 0)
        if 0 < self.learned_positions < self.max_length:
            raise ValueError(
                f"max_length={self.max_length}: expected at most learned_positions={self.learned_positions}"
            )
        if self.rotary_theta is None:
            if self.rotary_scaling is not None:
                raise ValueError(f"rotary_scaling={self.rotary_scaling!r} without rotary_theta: expected None")
            return
        _number("rotary_theta", self.rotary_theta, 0)
        if self.rotary_theta == 0:
            raise ValueError("rotary_theta=0: expected a positive number, or None")
        if self.head_dim % 2:
            raise ValueError(f"head_dim={self.head_dim} with rotary positions: expected an even number")
        if not isinstance(self.rotary_scaling, RotaryScaling | None):
            raise TypeError(f"rotary_scaling={self.rotary_scaling!r}: expected a RotaryScaling or None")

    @property
    def parameters(self) -> int:
        """How many numbers the weights have."""
        from ._weights import shapes

        return sum(math.prod(shape) for shape in shapes(self).values())


def _number(name: str, value: Any, low: float) -> None:
    """Refuse what is no finite number of at least `low`."""
    if not isinstance(value, Real | Integral) or isinstance(value, bool):
        raise TypeError(f"{name}={value!r}: expected a number")
    if not math.isfinite(float(value)) or float(value) < low:
        bound = "" if low == -math.inf else f" of at least {low:g}"
        raise ValueError(f"{name}={value!r}: expected a finite number{bound}")
