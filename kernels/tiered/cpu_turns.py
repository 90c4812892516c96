"""Rotations, and motions of points. Matrices are tuples of their rows."""

from __future__ import annotations

from .._numba import jit
from .._vector import apply, dot, multiply_add, parts, root, vector
from .._vector_memory import copy_point, element, load_lanes, members


@jit
def euler_rotation(sines, cosines, at):
    """Rz(a) Ry(b) Rx(c) for the angles from place `at`."""
    sa, sb, sc = load_lanes(sines, at), load_lanes(sines, at + 1), load_lanes(sines, at + 2)
    ca, cb, cc = load_lanes(cosines, at), load_lanes(cosines, at + 1), load_lanes(cosines, at + 2)
    return (
        vector(ca * cb, ca * sb * sc - sa * cc, ca * sb * cc + sa * sc),
        vector(sa * cb, sa * sb * sc + ca * cc, sa * sb * cc - ca * sc),
        vector(0 - sb, cb * sc, cb * cc),
    )


@jit
def euler_gradient(torque, sines, cosines, at):
    """dE/d(a, b, c), the components of the torque, as it is after the rotation, along z, Rz y and Rz Ry x."""
    sa, sb = load_lanes(sines, at), load_lanes(sines, at + 1)
    ca, cb = load_lanes(cosines, at), load_lanes(cosines, at + 1)
    x, y, z = parts(torque)
    return vector(z, ca * y - sa * x, cb * (ca * x + sa * y) - sb * z)


@jit
def axis_rotation(line, sine, cosine):
    """The rotation about `line`, which has any length, the unit vector along it, and the inverse of its length."""
    inverse = 1 / root(dot(line, line))
    unit = line * inverse
    x, y, z = parts(unit * sine)
    u, v, w = parts(unit)
    across = unit * (1 - cosine)
    rows = (
        multiply_add(vector(cosine, 0 - z, y), across, u),
        multiply_add(vector(z, cosine, 0 - x), across, v),
        multiply_add(vector(0 - y, x, cosine), across, w),
    )
    return rows, unit, inverse


@jit
def less_identity(m):
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = parts(m[0]), parts(m[1]), parts(m[2])
    return vector(xx - 1, xy, xz), vector(yx, yy - 1, yz), vector(zx, zy, zz - 1)


@jit
def twist(m):
    """The sum of a x b if m is that of a b^T."""
    (_, xy, xz), (yx, _, yz), (zx, zy, _) = parts(m[0]), parts(m[1]), parts(m[2])
    return vector(yz - zy, zx - xz, xy - yx)


@jit
def move(point, centre, turn, shift):
    """``point + D (point - centre) + shift`` for D, a rotation less the identity. No motion changes no bit."""
    return point + (apply(turn, point - centre) + shift)


@jit
def copy(points, start, stop, tile, x, out):
    """``out = x`` for some points of a tile."""
    places, out_places = members(tile, x.shape[0], 3 * x.shape[1]), members(tile, out.shape[0], 3 * out.shape[1])
    for i in range(start, stop):
        copy_point(x, places, out, out_places, element(points, i))
