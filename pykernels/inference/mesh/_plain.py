"""The block on one chip, and the arithmetic that chips do on what they hold."""

from __future__ import annotations

import numpy as np

from ..plan.volumes import Shapes
from ._shards import Array

EPS = 1e-6


def plain_block(
    shapes: Shapes,
    weights: dict[str, Array],
    x: Array,
    cache: tuple[Array, Array] | None = None,
    *,
    rotary_theta: float | None = None,
) -> tuple[Array, tuple[Array, Array]]:
    """A decoder block with causal attention, unpartitioned: what every layout must equal.

    Parameters
    ----------
    weights : "attention_norm.weight" (E,), "qkv.weight" (Hq D + 2 Hkv D, E) with rows of q, k, v, "output.weight"
        (E, Hq D), "feedforward_norm.weight" (E,) if serial, "up.weight" (2 F, E) with the gate's rows first, or (F, E)
        if not gated, "down.weight" (E, F)
    x : (B, L, E), tokens that follow those of the cache
    cache : None, or keys and values (B, S, Hkv, D)
    rotary_theta : None, or the base of rotary frequencies, on pairs i and i + D / 2

    Returns the output (B, L, E) and the cache (B, S + L, Hkv, D). The norms are of the root mean square (plus 1e-6
    under the root), the activation is SiLU.
    """
    batch, length = x.shape[:2]
    q_rows, kv_rows = shapes.heads * shapes.head_dim, shapes.kv_heads * shapes.head_dim

    def attend(h: Array) -> Array:
        nonlocal cache
        rows = np.split(h @ weights["qkv.weight"].T, [q_rows, q_rows + kv_rows], -1)
        q, k, v = (part.reshape(batch, length, -1, shapes.head_dim) for part in rows)
        start = 0 if cache is None else cache[0].shape[1]
        q, k = rotate(q, start, rotary_theta), rotate(k, start, rotary_theta)
        cache = (k, v) if cache is None else (np.concatenate([cache[0], k], 1), np.concatenate([cache[1], v], 1))
        attended: Array = attention(q, *cache).reshape(batch, length, q_rows) @ weights["output.weight"].T
        return attended

    def feed(h: Array) -> Array:
        up = h @ weights["up.weight"].T
        active = silu(up[..., : shapes.hidden]) * up[..., shapes.hidden :] if shapes.gated else silu(up)
        down: Array = active @ weights["down.weight"].T
        return down

    h = normalize(x, squares(x), shapes.width) * weights["attention_norm.weight"]
    if shapes.parallel:
        y = x + attend(h) + feed(h)
    else:
        y = x + attend(h)
        y = y + feed(normalize(y, squares(y), shapes.width) * weights["feedforward_norm.weight"])
    assert cache is not None
    return y, cache


def squares(x: Array) -> Array:
    """The sum of squares of each token, (B, L, 1)."""
    sums: Array = np.square(x).sum(-1, keepdims=True)
    return sums


def normalize(x: Array, sum_of_squares: Array, width: int) -> Array:
    normalized: Array = x / np.sqrt(sum_of_squares / width + EPS)
    return normalized


def silu(x: Array) -> Array:
    activated: Array = x / (1 + np.exp(-x))
    return activated


def rotate(x: Array, start: int, theta: float | None) -> Array:
    """Rotary positions `start`, `start` + 1, ... for (B, L, H, D)."""
    if theta is None:
        return x
    half = x.shape[-1] // 2
    positions = np.arange(start, start + x.shape[1])
    angles = positions[:, None, None] * theta ** (-np.arange(half) / half)
    a, b, cosine, sine = x[..., :half], x[..., half:], np.cos(angles), np.sin(angles)
    return np.concatenate([a * cosine - b * sine, b * cosine + a * sine], -1)


def attention(q: Array, k: Array, v: Array) -> Array:
    """q (B, L, Hq, D) on k and v (B, S, Hkv, D), whose last L tokens are those of q."""
    batch, length, heads, dim = q.shape
    context, kv_heads = k.shape[1:3]
    grouped = q.reshape(batch, length, kv_heads, heads // kv_heads, dim)
    scores = np.einsum("blhgd,bshd->bhgls", grouped, k) / np.sqrt(dim)
    hidden = np.arange(context) > np.arange(context - length, context)[:, None]
    scores = np.where(hidden, -np.inf, scores)
    p = np.exp(scores - scores.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    attended: Array = np.einsum("bhgls,bshd->blhgd", p, v).reshape(q.shape)
    return attended
