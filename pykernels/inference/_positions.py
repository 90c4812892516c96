"""Cosines and sines of rotary positions."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._arrays import Array, namespace
from ._config import Config

FIRST = 512


class RotaryTables:
    """Tables (positions, D / 2) of a configuration, longer when longer sequences come; safe among threads."""

    def __init__(self, theta: float, config: Config, like: Any) -> None:
        self._frequencies = frequencies(theta, config)
        self._longest = config.max_length
        self._like = like
        self._tables: tuple[Any, Any] = self._made(min(FIRST, self._longest))

    def reaching(self, length: int) -> tuple[Any, Any]:
        """Cosines and sines of at least the positions below `length`, which is at most max_length."""
        tables = self._tables
        if tables[0].shape[0] < length:
            tables = self._tables = self._made(min(max(length, 2 * tables[0].shape[0]), self._longest))
        return tables

    def _made(self, length: int) -> tuple[Any, Any]:
        angles = np.float64(np.arange(length, dtype=np.float32)[:, None] * self._frequencies)
        kind = namespace(self._like)[1]
        return kind.from_numpy(np.float32(np.cos(angles)), self._like), kind.from_numpy(
            np.float32(np.sin(angles)), self._like
        )


def frequencies(theta: float, config: Config) -> Array:
    """The angle between neighbouring positions of every pair, (D / 2,).

    In float32, as the angles are: that is what checkpoints were trained with.
    """
    exponents = np.float32(np.arange(0, config.head_dim, 2)) / np.float32(config.head_dim)
    turned: Array = np.float32(1) / np.float32(float(theta) ** np.float64(exponents))
    scaling = config.rotary_scaling
    if scaling is None:
        return turned
    slow: Array = turned / np.float32(scaling.factor)
    if scaling.original_length is None or scaling.low is None or scaling.high is None:
        return slow
    turns = scaling.original_length * np.float64(turned) / (2 * np.pi)
    kept = np.clip((turns - scaling.low) / (scaling.high - scaling.low), 0, 1)
    mixed: Array = np.float32((1 - kept) * slow + kept * turned)
    return mixed
