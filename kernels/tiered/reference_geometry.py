"""Angles and dihedrals with their gradients, in NumPy float64."""

from __future__ import annotations

from typing import Any

import numpy as np

from .problem import SHORTEST

Array = np.ndarray[Any, Any]


def add(g: Array, atoms: Array, parts: Array) -> None:
    """Add the `parts` (n, a, 3) to the gradient of the `atoms` (n, a)."""
    np.add.at(g, atoms, parts)


def interacting(x: Array, terms: Any) -> tuple[Array, Array, Array, Array]:
    """Of all pairs of places of `Pairs` or `Vina` that interact, either way round: both, x_i - x_j, and how far."""
    there = x[terms.atoms]
    count = len(there)
    seen = np.ones((count, count), bool)
    np.fill_diagonal(seen, False)
    seen[np.repeat(np.arange(count), np.diff(terms.exclusion_ptr)), terms.exclusions] = False
    seen[terms.movable :, terms.movable :] = False
    i, j = np.nonzero(seen)
    v = there[i] - there[j]
    return i, j, v, np.maximum(np.sqrt(np.sum(v * v, 1)), SHORTEST)


def cos_angle(x: Array, atoms: Array, limit: float) -> tuple[Array, Array]:
    """cos(theta) (n,) of the angles at the second atoms, and its gradient (n, 3, 3)."""
    a, b = x[atoms[:, 0]] - x[atoms[:, 1]], x[atoms[:, 2]] - x[atoms[:, 1]]
    la, lb = (np.maximum(np.sqrt(np.sum(v * v, 1, keepdims=True)), SHORTEST) for v in (a, b))
    a, b = a / la, b / lb
    c = np.sum(a * b, 1, keepdims=True)
    at_a, at_b = (b - c * a) / la, (a - c * b) / lb
    return _clamped(c[:, 0], np.stack([at_a, -at_a - at_b, at_b], 1), limit)


def cos_dihedral(x: Array, atoms: Array, limit: float) -> tuple[Array, Array]:
    """cos(phi) (n,), and its gradient (n, 4, 3)."""
    v12, v32, v43 = (x[atoms[:, p]] - x[atoms[:, q]] for p, q in ((0, 1), (2, 1), (3, 2)))
    n1, n2 = np.cross(v12, v32), np.cross(v43, v32)
    l1, l2 = (np.maximum(np.sqrt(np.sum(n * n, 1, keepdims=True)), SHORTEST**2) for n in (n1, n2))
    n1, n2 = n1 / l1, n2 / l2
    c = np.sum(n1 * n2, 1, keepdims=True)
    at_n1, at_n2 = (n2 - c * n1) / l1, (n1 - c * n2) / l2
    at_12, at_43 = np.cross(v32, at_n1), np.cross(v32, at_n2)
    at_32 = np.cross(at_n1, v12) + np.cross(at_n2, v43)
    return _clamped(c[:, 0], np.stack([at_12, -at_12 - at_32, at_32 - at_43, at_43], 1), limit)


def dihedral(x: Array, atoms: Array, limit: float, signed: bool) -> tuple[Array, Array]:
    """phi (n,), and its gradient (n, 4, 3).

    If `signed`, no limit is needed, and the gradient is zero where three atoms are collinear; if not, it is
    zero where the cosine is clamped.
    """
    c, d_c = cos_dihedral(x, atoms, limit)
    if not signed:
        return np.arccos(c), d_c * (-1 / sine(c))[:, None, None]
    b1, b2, b3 = (x[atoms[:, p + 1]] - x[atoms[:, p]] for p in range(3))
    n1, n2 = np.cross(b1, b2), np.cross(b2, b3)
    length = np.maximum(np.sqrt(np.sum(b2 * b2, 1)), SHORTEST)
    phi = np.arctan2(length * np.sum(b1 * n2, 1), np.sum(n1 * n2, 1))
    at_0, at_3 = (
        sign * n * (length / np.maximum(np.sum(n * n, 1), SHORTEST**4))[:, None] for sign, n in ((-1, n1), (1, n2))
    )
    p, q = (np.sum(v * b2, 1)[:, None] / (length**2)[:, None] for v in (b1, b3))
    return phi, np.stack([at_0, -at_0 - p * at_0 + q * at_3, -at_3 + p * at_0 - q * at_3, at_3], 1)


def sine(c: Array) -> Array:
    """The sine of a cosine, tiny instead of 0."""
    return np.sqrt(np.maximum(1 - c * c, 1e-30))


def _clamped(c: Array, gradient: Array, limit: float) -> tuple[Array, Array]:
    inside = np.abs(c) < limit
    return np.clip(c, -limit, limit), gradient * inside[:, None, None]
