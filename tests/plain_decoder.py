"""A decoder in plain NumPy float64, one sequence and one query head at a time."""

from __future__ import annotations

import math

import numpy as np

EXACT = {
    "silu": lambda z: z / (1 + np.exp(-z)),
    "relu": lambda z: np.maximum(z, 0),
    "gelu": np.vectorize(lambda z: z * 0.5 * (1 + math.erf(z / math.sqrt(2)))),
    "gelu_tanh": lambda z: 0.5 * z * (1 + np.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3))),
}

PLAIN = {
    "gated": False,
    "norm": "layer",
    "rotary_theta": None,
    "learned_positions": 64,
    "max_length": 64,
    "qkv_bias": True,
    "output_bias": True,
    "feedforward_bias": True,
}
"""What a configuration of the kind of GPT-2 changes in one of the kind of Llama."""


def logits(config, weights, tokens):
    """Logits (T, V) of tokens (T,)."""
    w = {name: np.float64(x) for name, x in weights.items()}
    x = w["embedding"][tokens] * config.embedding_scale
    if config.learned_positions:
        x = x + w["positions"][: len(tokens)]
    for i in range(config.layers):
        layer = {name.removeprefix(f"layers.{i}."): x for name, x in w.items() if name.startswith(f"layers.{i}.")}
        n = norm(config, layer, "attention_norm", x)
        attended = product(layer, "output", heads(config, product(layer, "qkv", n)))
        if config.block == "parallel":
            x = x + attended + feedforward(config, layer, n)
        else:
            x = x + attended
            x = x + feedforward(config, layer, norm(config, layer, "feedforward_norm", x))
    return norm(config, w, "final_norm", x) @ w["embedding" if config.tied else "head.weight"].T


def product(w, name, x):
    return x @ w[f"{name}.weight"].T + w.get(f"{name}.bias", 0.0)


def norm(config, w, name, x):
    if config.norm == "layer":
        x = x - x.mean(-1, keepdims=True)
    x = x / np.sqrt(np.mean(x * x, -1, keepdims=True) + config.norm_eps)
    return x * (w[f"{name}.weight"] + config.norm_offset) + w.get(f"{name}.bias", 0.0)


def feedforward(config, w, x):
    z, f = product(w, "up", x), EXACT[config.activation]
    z = f(z[:, : config.hidden]) * z[:, config.hidden :] if config.gated else f(z)
    return product(w, "down", z)


def heads(config, qkv):
    """Attention, row by row."""
    t, d = len(qkv), config.head_dim
    each = qkv.reshape(t, -1, d).swapaxes(0, 1)
    q, k, v = np.split(each, [config.heads, config.heads + config.kv_heads])
    if config.rotary_theta is not None:
        q, k = turned(config, q), turned(config, k)
    out = np.zeros((config.heads, t, d))
    for h in range(config.heads):
        shared = h // (config.heads // config.kv_heads)
        for i in range(t):
            first = 0 if config.window is None else max(0, i + 1 - config.window)
            scores = k[shared, first : i + 1] @ q[h, i] / math.sqrt(d)
            p = np.exp(scores - scores.max())
            out[h, i] = p @ v[shared, first : i + 1] / p.sum()
    return out.swapaxes(0, 1).reshape(t, -1)


def turned(config, x):
    """Pairs i and i + D / 2 as complex numbers."""
    half = config.head_dim // 2
    angle = np.array([config.rotary_theta ** (-i / half) for i in range(half)])
    if config.rotary_scaling is not None:
        angle = angle / config.rotary_scaling.factor
    z = (x[..., :half] + 1j * x[..., half:]) * np.exp(1j * np.arange(x.shape[1])[:, None] * angle)
    return np.concatenate([z.real, z.imag], -1)
