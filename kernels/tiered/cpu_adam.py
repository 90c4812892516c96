"""Adam, of one array and of all parameters of a batch."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from .._numba import jit, kernel

Array = np.ndarray[Any, Any]

SLICES = 16
"""Pieces of a conformation that threads share."""


def adam(
    parameter: Array,
    gradient: Array,
    first: Array,
    second: Array,
    rate: float,
    step: int,
    beta1: float,
    beta2: float,
    epsilon: float,
    clip: float,
) -> None:
    flat = (each.reshape(-1) for each in (parameter, gradient, first, second))
    _adam(7 * parameter.nbytes, *flat, coefficients(rate, step, beta1, beta2, epsilon, clip))


@jit
def coefficients(rate, step, beta1, beta2, epsilon, clip):
    """What a step multiplies with: the two corrections of bias become one factor of the rate and one of epsilon."""
    correction = np.sqrt(1 - beta2**step)
    return np.array([rate * correction / (1 - beta1**step), beta1, beta2, epsilon * correction, clip])


@kernel
def _adam(parameter, gradient, first, second, constants):
    for task in numba.prange(SLICES):
        share(np.int64(task), SLICES, parameter, gradient, first, second, constants)


@jit
def share(number, of, parameter, gradient, first, second, constants):
    """Share `number` of `of` of a step of flat arrays."""
    begin, end = number * len(parameter) // of, (number + 1) * len(parameter) // of
    _run(parameter[begin:end], gradient[begin:end], first[begin:end], second[begin:end], constants)


@jit
def _run(parameter, gradient, first, second, constants):
    real = parameter.dtype.type
    rate, beta1, beta2, epsilon, clip = (
        real(constants[0]),
        real(constants[1]),
        real(constants[2]),
        real(constants[3]),
        real(constants[4]),
    )
    rest1, rest2 = real(1 - constants[1]), real(1 - constants[2])
    for i in range(len(parameter)):
        g = gradient[i]
        if g > clip:
            g = clip
        if g < -clip:
            g = -clip
        m = beta1 * first[i] + rest1 * g
        v = beta2 * second[i] + rest2 * (g * g)
        first[i] = m
        second[i] = v
        parameter[i] -= rate * m / (np.sqrt(v) + epsilon)


@kernel
def step_kernel(x, motion, at_x, at_motion, first, first_motion, second, second_motion, constants, macro_constants):
    """A step of a batch: points, groups and axes by `constants`, macro-groups by `macro_constants`."""
    for task in numba.prange(len(x) * SLICES):
        b, number = divmod(np.int64(task), SLICES)
        _member(b, number, x, at_x, first, second, constants)
        _groups(b, number, motion, at_motion, first_motion, second_motion, constants, macro_constants)


@jit
def _groups(b, number, p, g, m, v, constants, macro_constants):
    _member(b, number, p.translation, g.translation, m.translation, v.translation, constants)
    _member(b, number, p.euler, g.euler, m.euler, v.euler, constants)
    _member(b, number, p.axis, g.axis, m.axis, v.axis, constants)
    changed = (p.macro_translation, g.macro_translation, m.macro_translation, v.macro_translation)
    _member(b, number, *changed, macro_constants)
    _member(b, number, p.macro_euler, g.macro_euler, m.macro_euler, v.macro_euler, macro_constants)


@jit
def _member(b, number, p, g, m, v, constants):
    share(number, SLICES, p[b].reshape(-1), g[b].reshape(-1), m[b].reshape(-1), v[b].reshape(-1), constants)
