"""Vectors, angles and dihedrals of one conformation `x` (N, 3), in the precision of x.

A vector is a tuple of three numbers: LLVM keeps it in registers. What is short or collinear counts as
`reference_energy` has it.
"""

from __future__ import annotations

import math

from .._numba import jit
from .._vector import multiply_add
from .problem import SHORTEST

_SHORTEST_LENGTH_SQUARED, _SHORTEST_NORMAL_SQUARED = SHORTEST**2, SHORTEST**4
_NEARLY_PLANAR = 0.9


@jit
def part_of(table, part, parts):
    """The first row of part number `part` of `parts` of a table, and the one after its last."""
    count = len(table)
    return part * count // parts, (part + 1) * count // parts


@jit
def difference(x, i, j):
    return x[i, 0] - x[j, 0], x[i, 1] - x[j, 1], x[i, 2] - x[j, 2]


@jit
def dot(a, b):
    return multiply_add(multiply_add(a[0] * b[0], a[1], b[1]), a[2], b[2])


@jit
def cross(a, b):
    x, y, z = -(a[2] * b[1]), -(a[0] * b[2]), -(a[1] * b[0])
    return multiply_add(x, a[1], b[2]), multiply_add(y, a[2], b[0]), multiply_add(z, a[0], b[1])


@jit
def scaled(factor, a):
    return factor * a[0], factor * a[1], factor * a[2]


@jit
def combined(p, a, q, b):
    """p a + q b"""
    return multiply_add(p * a[0], q, b[0]), multiply_add(p * a[1], q, b[1]), multiply_add(p * a[2], q, b[2])


@jit
def add(gradient, i, factor, a):
    gradient[i, 0] = multiply_add(gradient[i, 0], factor, a[0])
    gradient[i, 1] = multiply_add(gradient[i, 1], factor, a[1])
    gradient[i, 2] = multiply_add(gradient[i, 2], factor, a[2])


@jit
def inverse_distance(x, v):
    """1 / |v|"""
    return _inverse_length(x, v, _SHORTEST_LENGTH_SQUARED)


@jit
def angle(x, i, j, k):
    """cos(theta), sin(theta), and dcos(theta)/dx of i and of k; j has the opposite of their sum."""
    a, b = difference(x, i, j), difference(x, k, j)
    inverse_a, inverse_b = inverse_distance(x, a), inverse_distance(x, b)
    a, b = scaled(inverse_a, a), scaled(inverse_b, b)
    c, n = dot(a, b), cross(a, b)
    at_i, at_k = combined(inverse_a, b, -inverse_a * c, a), combined(inverse_b, a, -inverse_b * c, b)
    return c, _sine(x, c, math.sqrt(dot(n, n))), at_i, at_k


@jit
def cos_dihedral(x, i, j, k, l):  # noqa: E741
    """cos(phi), sin(phi) >= 0, and dcos(phi)/d(v12, v32, v43) as `add_dihedral` takes it."""
    v12, v32, v43, n1, n2, inverse_1, inverse_2 = _planes(x, i, j, k, l)
    c = dot(n1, n2)
    s = math.sqrt(dot(v32, v32)) * inverse_1 * abs(dot(v12, n2))
    at_n1, at_n2 = combined(inverse_1, n2, -inverse_1 * c, n1), combined(inverse_2, n1, -inverse_2 * c, n2)
    p, q = cross(at_n1, v12), cross(at_n2, v43)
    return c, _sine(x, c, s), cross(v32, at_n1), (p[0] + q[0], p[1] + q[1], p[2] + q[2]), cross(v32, at_n2)


@jit
def dihedral(x, i, j, k, l):  # noqa: E741
    """phi in [-pi, pi] with IUPAC's sign, and dphi/d(v12, v32, v43)."""
    real = x.dtype.type
    v12, v32, v43, n1, n2, inverse_1, inverse_2 = _planes(x, i, j, k, l)
    inverse = inverse_distance(x, v32)
    length = real(1) / inverse
    phi = math.atan2(length * inverse_1 * dot(v12, n2), dot(n1, n2))
    at_12, at_43 = scaled(length * inverse_1, n1), scaled(-length * inverse_2, n2)
    p, q = dot(v12, v32) * inverse * inverse, dot(v43, v32) * inverse * inverse
    return phi, at_12, combined(-p, at_12, -q, at_43), at_43


@jit
def add_dihedral(gradient, i, j, k, l, slope, at_12, at_32, at_43):  # noqa: E741
    for axis in range(3):
        a, b, c = slope * at_12[axis], slope * at_32[axis], slope * at_43[axis]
        gradient[i, axis] += a
        gradient[j, axis] -= a + b
        gradient[k, axis] += b - c
        gradient[l, axis] += c


@jit
def clamped(x, c, s, least):
    """The angle of a cosine and a sine in [least, pi - least], and whether it lay inside that range."""
    real = x.dtype.type
    angle, most = math.atan2(s, c), real(math.pi) - least
    if angle <= least:
        return least, False
    if angle >= most:
        return most, False
    return angle, s > 0


@jit
def _planes(x, i, j, k, l):  # noqa: E741
    """v12, v32, v43, the normals v12 x v32 and v43 x v32, divided by their lengths, and 1 / lengths."""
    v12, v32, v43 = difference(x, i, j), difference(x, k, j), difference(x, l, k)
    n1, n2 = cross(v12, v32), cross(v43, v32)
    inverse_1 = _inverse_length(x, n1, _SHORTEST_NORMAL_SQUARED)
    inverse_2 = _inverse_length(x, n2, _SHORTEST_NORMAL_SQUARED)
    return v12, v32, v43, scaled(inverse_1, n1), scaled(inverse_2, n2), inverse_1, inverse_2


@jit
def _inverse_length(x, v, shortest_squared):
    real = x.dtype.type
    square, least = dot(v, v), real(shortest_squared)
    return real(1) / math.sqrt(least if square < least else square)  # NaN stays


@jit
def _sine(x, c, precise):
    """The sine of a cosine; `precise` is so too unless atoms coincide, and has the digits that 1 - c^2 loses."""
    real = x.dtype.type
    return precise if abs(c) > real(_NEARLY_PLANAR) else math.sqrt(real(1) - c * c)
