"""Decoders of the benchmarks of inference, what they must read, and their logits computed plainly in NumPy."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from pykernels.inference import Config, Decoder
from pykernels.inference._weights import quantizable, shapes
from pykernels.quant import QuantizedTensor

Array = np.ndarray[Any, Any]
Past = Sequence[tuple[Array, Array]]
"""Keys, turned to their positions, and values (Hkv, S, D) of every layer."""

SMALL = Config(32_000, layers=18, width=1536, hidden=4096, heads=12, kv_heads=4, head_dim=128)
LARGE = Config(32_000, layers=22, width=2048, hidden=5632, heads=32, kv_heads=4, head_dim=64)
"""Llama-like decoders of 0.50 and 1.03 billion parameters."""

ITEM = {"float32": 4, "bfloat16": 2, "int8": 1, "e4m3fn": 1}


def described(config: Config) -> str:
    return f"{config.parameters / 1e9:.2f} B" if config.parameters > 1e8 else f"{config.parameters / 1e6:.1f} M"


def many_heads(layers: int, width: int, heads: int) -> Config:
    """A decoder with as many heads of keys as of queries, whose attention is as large as half of its feedforward."""
    return Config(
        4096,
        layers=layers,
        width=width,
        hidden=8 * width // 3,
        heads=heads,
        kv_heads=heads,
        head_dim=width // heads,
        max_length=1 << 17,
    )


def one_head(config: Config) -> Config:
    """The same number of parameters with one head of keys: the feedforward has what the others had."""
    spared = 2 * (config.kv_heads - 1) * config.head_dim
    return replace(config, kv_heads=1, hidden=config.hidden + spared // 3)


@functools.lru_cache(1)
def half(config: Config) -> Decoder:
    """A random decoder in bfloat16."""
    return Decoder.random(config, dtype="bfloat16")


def decoder(config: Config, weights: str) -> Decoder:
    """The same numbers in float32, or with quantized weights."""
    made = half(config)
    if weights == "bfloat16":
        return made
    if weights == "float32":
        return Decoder(config, {name: _float32(x) for name, x in made.weights.items()})
    return made.quantize(weights)


def weight_bytes(config: Config, weights: str) -> int:
    """Bytes of the weights, all of which a step reads: the embedding is the head."""
    total, narrow = 0, weights in ("int8", "e4m3fn")
    for name, shape in shapes(config).items():
        kept = narrow and quantizable(config, name)
        total += math.prod(shape) * ITEM[weights if kept or not narrow else "bfloat16"] + kept * 4 * shape[0]
    return total


def cache_bytes(config: Config, tokens: int, dtype: str) -> int:
    """Bytes of the keys and values of `tokens`, in all layers."""
    return 2 * config.layers * config.kv_heads * config.head_dim * tokens * ITEM[dtype]


def flops(config: Config, tokens: int) -> int:
    """Operations of a prefill: products with all weights but the head, which multiplies the last token, and causal
    attention."""
    inside = config.parameters - config.vocab * config.width
    pairs = tokens * (tokens + 1) // 2
    attention = 4 * config.layers * config.heads * config.head_dim * pairs
    return 2 * (inside * tokens + config.vocab * config.width) + attention


def tokens(config: Config, count: int) -> Array:
    return np.random.default_rng(0).integers(0, config.vocab, count)


@functools.lru_cache(1)
def half_logits(config: Config, count: int) -> Array:
    """`logits` of `tokens` by `half`."""
    return logits(half(config), tokens(config, count))


def logits(decoder: Decoder, given: Array, past: Past | None = None) -> Array:
    """Float32 logits (V,) of what follows tokens (T,) that come after a past."""
    c, weights = decoder.config, decoder.weights
    seen = 0 if past is None else past[0][0].shape[1]
    positions = seen + np.arange(len(given))
    x = _wide(weights["embedding"], given)
    for i in range(c.layers):
        of = {part: f"layers.{i}.{part}.weight" for part in ("qkv", "output", "up", "down")}
        normed = _norm(c, x, weights[f"layers.{i}.attention_norm.weight"])
        heads = (normed @ _wide(weights[of["qkv"]]).T).reshape(len(given), -1, c.head_dim).swapaxes(0, 1)
        q, k, v = np.split(heads, [c.heads, c.heads + c.kv_heads])
        keys, values = [_turned(c, k, positions)], [v]
        if past is not None:
            for all_parts, before in zip((keys, values), past[i], strict=True):
                all_parts.insert(0, _float32(before))
        attended = _attended(c, _turned(c, q, positions), np.concatenate(keys, 1), np.concatenate(values, 1), seen)
        x = x + attended @ _wide(weights[of["output"]]).T
        normed = _norm(c, x, weights[f"layers.{i}.feedforward_norm.weight"])
        gate, up = np.split(normed @ _wide(weights[of["up"]]).T, 2, axis=1)
        x = x + (gate / (1 + np.exp(-gate)) * up) @ _wide(weights[of["down"]]).T
    found: Array = _norm(c, x[-1:], weights["final_norm.weight"])[0] @ _wide(weights["embedding"]).T
    return found


def _wide(weight: Any, rows: Any = slice(None)) -> Array:
    """Rows of a weight in float32."""
    if isinstance(weight, QuantizedTensor):
        return _float32(QuantizedTensor(weight.codes[rows], weight.scale[rows], "row").dequantize())
    return _float32(weight[rows])


def _float32(x: Array) -> Array:
    """`x`, of bfloat16 or float32, in float32: by bits, for ml_dtypes takes seconds."""
    if x.dtype == np.float32:
        return x
    bits = x.view(np.uint16).astype(np.uint32)
    bits <<= 16
    return bits.view(np.float32)


def _norm(config: Config, x: Array, weight: Any) -> Array:
    normed: Array = x / np.sqrt((x * x).mean(-1, keepdims=True) + config.norm_eps) * _float32(weight)
    return normed


def _turned(config: Config, x: Array, positions: Array) -> Array:
    """Heads (H, T, D): the pairs i and i + D / 2 turned by rotary angles."""
    half = config.head_dim // 2
    assert config.rotary_theta is not None
    angles = positions[:, None] * config.rotary_theta ** (-np.arange(half) / half)
    cos, sin = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
    a, b = x[..., :half], x[..., half:]
    return np.concatenate([a * cos - b * sin, b * cos + a * sin], -1)


def _attended(config: Config, q: Array, k: Array, v: Array, seen: int) -> Array:
    """Causal attention of tokens after `seen` others, (T, Hq * D)."""
    later = np.arange(k.shape[1]) > seen + np.arange(q.shape[1])[:, None]

    def heads() -> Iterator[Array]:
        for number, head in enumerate(q):
            shared = number * config.kv_heads // config.heads
            scores = np.where(later, -np.inf, head @ k[shared].T / math.sqrt(config.head_dim))
            p = np.exp(scores - scores.max(-1, keepdims=True))
            yield p @ v[shared] / p.sum(-1, keepdims=True)

    return np.concatenate(list(heads()), 1)
