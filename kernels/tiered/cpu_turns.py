"""Rotations, and motions of points. Matrices are tuples of their rows."""

from __future__ import annotations

import math

from .._numba import jit
from .._vector import combine, dot, element, load, multiply_add, parts, store, vector


@jit
def euler_rotation(sines, cosines, at):
    """Rz(a) Ry(b) Rx(c) for the angles from place `at`."""
    sa, sb, sc = sines[at], sines[at + 1], sines[at + 2]
    ca, cb, cc = cosines[at], cosines[at + 1], cosines[at + 2]
    return (
        vector(ca * cb, ca * sb * sc - sa * cc, ca * sb * cc + sa * sc),
        vector(sa * cb, sa * sb * sc + ca * cc, sa * sb * cc - ca * sc),
        vector(-sb, cb * sc, cb * cc),
    )


@jit
def euler_gradient(torque, sines, cosines, at):
    """dE/d(a, b, c), the components of the torque, as it is after the rotation, along z, Rz y and Rz Ry x."""
    sa, sb, ca, cb = sines[at], sines[at + 1], cosines[at], cosines[at + 1]
    x, y, z = parts(torque)
    return vector(z, ca * y - sa * x, cb * (ca * x + sa * y) - sb * z)


@jit
def axis_rotation(line, sine, cosine):
    """The rotation about `line`, which has any length, the unit vector along it, and the inverse of its length."""
    one = type(sine)(1)
    inverse = one / math.sqrt(dot(line, line))
    unit = line * inverse
    x, y, z = parts(unit * sine)
    u, v, w = parts(unit)
    across = unit * (one - cosine)
    rows = (
        multiply_add(vector(cosine, -z, y), across, u),
        multiply_add(vector(z, cosine, -x), across, v),
        multiply_add(vector(-y, x, cosine), across, w),
    )
    return rows, unit, inverse


@jit
def less_identity(m):
    one = type(parts(m[0])[0])(1)
    zero = one - one
    return m[0] - vector(one, zero, zero), m[1] - vector(zero, one, zero), m[2] - vector(zero, zero, one)


@jit
def twist(m):
    """The sum of a x b if m is that of a b^T."""
    (_, xy, xz), (yx, _, yz), (zx, zy, _) = parts(m[0]), parts(m[1]), parts(m[2])
    return vector(yz - zy, zx - xz, xy - yx)


@jit
def move(points, start, stop, x, row, centre, columns, shift, out, out_row):
    """``out = x + D (x - centre) + shift`` for some points, given D's columns. No motion changes no bit."""
    for i in range(start, stop):
        place = element(points, i)
        point = load(x, row + place)
        store(point + (combine(point - centre, columns) + shift), out, out_row + place)


@jit
def copy(points, start, stop, x, row, out, out_row):
    for i in range(start, stop):
        store(load(x, row + element(points, i)), out, out_row + element(points, i))
