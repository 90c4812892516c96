"""From products to logits, for a block of keys: ``s[key * width + lane]``, in place."""

from __future__ import annotations

import math

import numpy as np
from numba import types
from numba.extending import overload

from .._exp import exp
from .._numba import jit
from .cpu_lanes import BIAS_AT, HIGH, LOW, MASK_AT, POSITION, QUERY_HEAD
from .cpu_problem import BIAS_STRIDE, MASK_STRIDE

_SMALL = 0.15
"""Below it, tanh by its series, which is off by less than a hundredth of an ulp of float32."""


@jit
def logits(rules, s, width, first, count, lanes):
    """Logits of `count` keys from key `first`, and -Inf where a lane may not see a key by its mask or its range."""
    like = s[0]
    scale = _like(like, rules.scale)
    for i in range(count * width):
        s[i] *= scale
    if rules.softcap > 0:
        cap = _like(like, rules.softcap)
        for i in range(count * width):
            s[i] = cap * tanh(s[i] / cap)
    if rules.slopes.size:
        _add_slopes(rules.slopes, s, width, first, count, lanes)
    if rules.bias.size:
        step = rules.numbers[BIAS_STRIDE + 3]
        for lane in range(width):
            at = lanes[BIAS_AT, lane] + first * step
            for j in range(count):
                bias = rules.bias[at + j * step]
                s[j * width + lane] = s[j * width + lane] + bias if bias > -np.inf else bias
    if rules.mask.size:
        step = rules.numbers[MASK_STRIDE + 3]
        for lane in range(width):
            at = lanes[MASK_AT, lane] + first * step
            for j in range(count):
                if not rules.mask[at + j * step]:
                    s[j * width + lane] = -np.inf


@jit
def bound(s, width, first, count, lanes):
    """-Inf where keys are out of a lane's range."""
    for lane in range(width):
        low, high = lanes[LOW, lane] - first, lanes[HIGH, lane] - first
        for j in range(min(low, count)):
            s[j * width + lane] = -np.inf
        for j in range(max(high, 0), count):
            s[j * width + lane] = -np.inf


@jit
def _add_slopes(slopes, s, width, first, count, lanes):
    for lane in range(width):
        slope, position = slopes[lanes[QUERY_HEAD, lane]], lanes[POSITION, lane]
        for j in range(count):
            s[j * width + lane] -= slope * abs(first + j - position)


def tanh(x):
    """tanh in the type of x; off by less than 4 ulp in float32. For jitted code."""
    raise NotImplementedError


@overload(tanh)
def _tanh(x):
    if x == types.float64:
        return lambda x: math.tanh(x)
    return lambda x: _tanh_32(x)


@jit
def _tanh_32(x):
    size = abs(x)
    decay = exp(np.float32(-2) * size)
    large = (np.float32(1) - decay) / (np.float32(1) + decay)
    if x < 0:
        large = -large
    y = x * x
    terms = np.float32(2 / 15) - y * np.float32(17 / 315)
    small = x - x * y * (np.float32(1 / 3) - y * terms)
    return small if size < np.float32(_SMALL) else large


def _like(like, value):
    """`value` in the type of `like`."""
    raise NotImplementedError


@overload(_like)
def _like_impl(like, value):
    return (lambda like, value: np.float64(value)) if like == types.float64 else (lambda like, value: np.float32(value))
