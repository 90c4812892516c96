"""Device functions of the tiered kernels: vectors are tuples of three, matrices of nine, row by row."""

from __future__ import annotations

import triton
import triton.language as tl

TAN_EIGHTH: tl.constexpr = tl.constexpr(0.41421356237309503)
HALF_PI: tl.constexpr = tl.constexpr(1.5707963267948966)
PI: tl.constexpr = tl.constexpr(3.141592653589793)


@triton.jit
def load3(ptr, stride, mask):
    """Three elements `stride` apart; zeros where masked."""
    x = tl.load(ptr, mask=mask, other=0.0)
    y = tl.load(ptr + stride, mask=mask, other=0.0)
    return (x, y, tl.load(ptr + 2 * stride, mask=mask, other=0.0))


@triton.jit
def store3(ptr, stride, v, mask):
    tl.store(ptr, v[0], mask=mask)
    tl.store(ptr + stride, v[1], mask=mask)
    tl.store(ptr + 2 * stride, v[2], mask=mask)


@triton.jit
def load9(ptr, stride, mask):
    a, b, c = load3(ptr, stride, mask), load3(ptr + 3 * stride, stride, mask), load3(ptr + 6 * stride, stride, mask)
    return (a[0], a[1], a[2], b[0], b[1], b[2], c[0], c[1], c[2])


@triton.jit
def store9(ptr, stride, m, mask):
    store3(ptr, stride, (m[0], m[1], m[2]), mask)
    store3(ptr + 3 * stride, stride, (m[3], m[4], m[5]), mask)
    store3(ptr + 6 * stride, stride, (m[6], m[7], m[8]), mask)


@triton.jit
def float64(v):
    return (v[0].to(tl.float64), v[1].to(tl.float64), v[2].to(tl.float64))


@triton.jit
def plus(a, b):
    return (a[0] + b[0], a[1] + b[1], a[2] + b[2])


@triton.jit
def minus(a, b):
    return (a[0] - b[0], a[1] - b[1], a[2] - b[2])


@triton.jit
def scaled(a, v):
    return (a * v[0], a * v[1], a * v[2])


@triton.jit
def chosen(condition, a, b):
    return (tl.where(condition, a[0], b[0]), tl.where(condition, a[1], b[1]), tl.where(condition, a[2], b[2]))


@triton.jit
def dot(a, b):
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@triton.jit
def cross(a, b):
    return (a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0])


@triton.jit
def turned(m, v):
    """m v"""
    return (
        m[0] * v[0] + m[1] * v[1] + m[2] * v[2],
        m[3] * v[0] + m[4] * v[1] + m[5] * v[2],
        m[6] * v[0] + m[7] * v[1] + m[8] * v[2],
    )


@triton.jit
def turned_back(m, v):
    """m^T v"""
    return (
        m[0] * v[0] + m[3] * v[1] + m[6] * v[2],
        m[1] * v[0] + m[4] * v[1] + m[7] * v[2],
        m[2] * v[0] + m[5] * v[1] + m[8] * v[2],
    )


@triton.jit
def product(m, n):
    a = turned_back(n, (m[0], m[1], m[2]))
    b = turned_back(n, (m[3], m[4], m[5]))
    c = turned_back(n, (m[6], m[7], m[8]))
    return (a[0], a[1], a[2], b[0], b[1], b[2], c[0], c[1], c[2])


@triton.jit
def less_identity(m):
    return (m[0] - 1.0, m[1], m[2], m[3], m[4] - 1.0, m[5], m[6], m[7], m[8] - 1.0)


@triton.jit
def torque(m):
    """sum x cross g of the matrix sum x g^T"""
    return (m[5] - m[7], m[6] - m[2], m[1] - m[3])


@triton.jit
def rotation(euler):
    """Rz(a) Ry(b) Rx(c)"""
    sa, ca = tl.sin(euler[0]), tl.cos(euler[0])
    sb, cb = tl.sin(euler[1]), tl.cos(euler[1])
    sc, cc = tl.sin(euler[2]), tl.cos(euler[2])
    return (
        ca * cb, ca * sb * sc - sa * cc, ca * sb * cc + sa * sc,
        sa * cb, sa * sb * sc + ca * cc, sa * sb * cc - ca * sc,
        -sb, cb * sc, cb * cc,
    )  # fmt: skip


@triton.jit
def euler_gradient(euler, r, t):
    """dE/deuler of a rotation `r` after which the torque is `t`: that about z, about Rz e_y and about Rz Ry e_x."""
    return (t[2], tl.cos(euler[0]) * t[1] - tl.sin(euler[0]) * t[0], r[0] * t[0] + r[3] * t[1] + r[6] * t[2])


@triton.jit
def axis_rotation(u, sine, versine):
    """The rotation about the unit vector `u`; `versine` is 1 - cos."""
    x, y, z = u[0], u[1], u[2]
    return (
        1.0 - versine * (y * y + z * z), versine * x * y - sine * z, versine * x * z + sine * y,
        versine * x * y + sine * z, 1.0 - versine * (x * x + z * z), versine * y * z - sine * x,
        versine * x * z - sine * y, versine * y * z + sine * x, 1.0 - versine * (x * x + y * y),
    )  # fmt: skip


@triton.jit
def angle(x, y):
    """The angle of float64 (x, y) to the x axis, in (-pi, pi], to 3 units in the last place; 0 at the origin."""
    a, b = tl.abs(x), tl.abs(y)
    small, large = tl.where(a < b, a, b), tl.where(a < b, b, a)
    steep = small > TAN_EIGHTH * large
    above = tl.where(steep, small - large, small)
    below = tl.where(steep, small + large, large)
    t = above / tl.where(below == 0.0, 1.0, below)
    s = t * t
    p = -0.019162068915902573 * s + 0.03921955253255129  # Chebyshev's fit of (atan(t) / t - 1) / t^2
    p = p * s - 0.05085030492810941
    p = p * s + 0.058580687568615106
    p = p * s - 0.06664502215671447
    p = p * s + 0.07692182535116648
    p = p * s - 0.09090904549884611
    p = p * s + 0.11111111014561013
    p = p * s - 0.14285714284657894
    p = p * s + 0.1999999999999548
    p = p * s - 0.3333333333333333
    r = t + t * s * p
    r = tl.where(steep, 0.5 * HALF_PI + r, r)
    r = tl.where(a < b, HALF_PI - r, r)
    r = tl.where(x < 0.0, PI - r, r)
    return tl.where(y < 0.0, -r, r)


@triton.jit
def arccos(c):
    return angle(c, tl.sqrt((1.0 - c) * (1.0 + c)))


@triton.jit
def bounded(x, low, high):
    """`x` clamped; NaN stays."""
    return tl.where(x < low, low, tl.where(x > high, high, x))
