"""Element-wise activations: their definition in float64, for the references of the families."""

from __future__ import annotations

import math

import numpy as np

ACTIVATIONS = ("relu", "silu", "gelu", "gelu_tanh")


def activated(z: np.ndarray, name: str | None) -> np.ndarray:
    """The activation of float64 numbers; of None, these."""
    if name is None:
        return z
    with np.errstate(over="ignore", invalid="ignore"):
        if name == "relu":
            return np.where(z < 0, 0.0, z)
        if name == "silu":
            return z / (1 + np.exp(-z))
        if name == "gelu":
            return z * np.array([0.5 * math.erfc(-v / math.sqrt(2)) for v in z.flat]).reshape(z.shape)
        # (1 + tanh(y)) / 2 = 1 / (1 + exp(-2 y)), whose tail is not lost in a difference
        return z / (1 + np.exp(-2 * math.sqrt(2 / math.pi) * (z + 0.044715 * z**3)))
