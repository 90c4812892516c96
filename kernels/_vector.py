"""Vectors of three float32 or float64, of `WIDTH` conformations at once, as values of jitted code.

    arm = point - centre
    turned = multiply_add(turned, column, parts(arm)[0])

`Lanes` are one number of each conformation, in one register; a `Vector` is three of them. All operations
are element by element, so that the bits of a conformation depend on no other. A 3 x 3 matrix is the tuple
of its rows.
"""

from __future__ import annotations

import operator
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, lower_builtin, models, register_model, type_callable

from ._numba import jit

WIDTH = 8
_LANE = ir.IntType(32)


class Lanes(types.Type):  # type: ignore[misc]
    def __init__(self, dtype: Any) -> None:
        self.dtype = dtype
        super().__init__(name=f"Lanes({dtype})")


class Vector(types.Type):  # type: ignore[misc]
    def __init__(self, dtype: Any) -> None:
        self.dtype = dtype
        super().__init__(name=f"Vector({dtype})")


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, fe_type: Any) -> None:
        super().__init__(manager, fe_type, ir.VectorType(manager.lookup(fe_type.dtype).get_value_type(), WIDTH))


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, fe_type: Any) -> None:
        lanes = ir.VectorType(manager.lookup(fe_type.dtype).get_value_type(), WIDTH)
        super().__init__(manager, fe_type, ir.ArrayType(lanes, 3))


def _define(operation: Any, instruction: str, *operands: Any) -> None:
    @type_callable(operation)
    def type_of_result(context: Any) -> Any:
        def typed(a: Any, b: Any) -> Any:
            if any(isinstance(a, left) and isinstance(b, right) for left, right in operands):
                return b if isinstance(a, types.Number) else a
            return None

        return typed

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        result = signature.return_type
        a, b = (coordinates(context, builder, *each, result.dtype) for each in zip(signature.args, args, strict=True))
        values = [getattr(builder, instruction)(x, y) for x, y in zip(a, b, strict=True)]
        return pack(builder, values) if isinstance(result, Vector) else values[0]

    for left, right in operands:
        lower_builtin(operation, left, right)(lower)


_mixed = (Lanes, Lanes), (Lanes, types.Number), (types.Number, Lanes)
_define(operator.add, "fadd", (Vector, Vector), *_mixed)
_define(operator.sub, "fsub", (Vector, Vector), *_mixed)
_define(operator.mul, "fmul", (Vector, Lanes), (Vector, types.Number), *_mixed)
_define(operator.truediv, "fdiv", *_mixed)


@intrinsic
def multiply_add(typing_context: Any, total: Any, a: Any, factor: Any) -> Any:
    """total + a * factor, rounded once where the processor can: of numbers, lanes, or vectors and any factor."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if not isinstance(total, (Lanes, Vector)):
            return _fuse(builder, args[1], args[2], args[0])
        totals, values, factors = (
            coordinates(context, builder, kind, value, total.dtype)
            for kind, value in zip(signature.args, args, strict=True)
        )
        sums = [_fuse(builder, x, y, z) for x, y, z in zip(values, factors, totals, strict=True)]
        return pack(builder, sums) if isinstance(total, Vector) else sums[0]

    return total(total, a, factor), generate


@intrinsic
def root(typing_context: Any, a: Any) -> Any:
    """The square root of lanes."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        name = f"llvm.sqrt.v{WIDTH}f{a.dtype.bitwidth}"
        kind = args[0].type
        return builder.call(cgutils.get_or_insert_function(builder.module, ir.FunctionType(kind, [kind]), name), args)

    return a(a), generate


@intrinsic
def zero(typing_context: Any, x: Any) -> Any:
    """The vector of zeros of an array's dtype."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return ir.Constant(context.get_value_type(signature.return_type), None)

    return Vector(x.dtype)(x), generate


@intrinsic
def vector(typing_context: Any, x: Any, y: Any, z: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return pack(builder, args)

    return Vector(x.dtype)(x, x, x), generate


@intrinsic
def parts(typing_context: Any, a: Any) -> Any:
    """The three lanes."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        lanes = coordinates(context, builder, a, args[0], a.dtype)
        return context.make_tuple(builder, signature.return_type, lanes)

    return types.UniTuple(Lanes(a.dtype), 3)(a), generate


@jit
def dot(a, b):
    x, y, z = parts(a)
    u, v, w = parts(b)
    return multiply_add(multiply_add(x * u, y, v), z, w)


@jit
def cross(a, b):
    x, y, z = parts(a)
    u, v, w = parts(b)
    return vector(y * w - z * v, z * u - x * w, x * v - y * u)


@jit
def product(m, n):
    """The matrix m n."""
    return combine(m[0], n), combine(m[1], n), combine(m[2], n)


@jit
def combine(a, m):
    """The row vector a m: m's rows, weighted."""
    x, y, z = parts(a)
    return multiply_add(multiply_add(m[0] * x, m[1], y), m[2], z)


@jit
def transpose(m):
    a, b, c = parts(m[0]), parts(m[1]), parts(m[2])
    return vector(a[0], b[0], c[0]), vector(a[1], b[1], c[1]), vector(a[2], b[2], c[2])


@jit
def apply(m, a):
    """The column vector m a."""
    return vector(dot(m[0], a), dot(m[1], a), dot(m[2], a))


def coordinates(context: Any, builder: Any, kind: Any, value: Any, dtype: Any) -> list[Any]:
    """The three lanes of a vector, or lanes, or a number in all lanes, three times."""
    if isinstance(kind, Vector):
        return [builder.extract_value(value, i) for i in range(3)]
    if not isinstance(kind, Lanes):
        number = context.cast(builder, value, kind, dtype)
        undefined = ir.Constant(ir.VectorType(number.type, WIDTH), ir.Undefined)
        single = builder.insert_element(undefined, number, _LANE(0))
        value = builder.shuffle_vector(single, undefined, ir.Constant(ir.VectorType(_LANE, WIDTH), None))
    return [value] * 3


def pack(builder: Any, lanes: Any) -> Any:
    """A vector of three lanes."""
    value = ir.Constant(ir.ArrayType(lanes[0].type, 3), ir.Undefined)
    for i, each in enumerate(lanes):
        value = builder.insert_value(value, each, i)
    return value


def _fuse(builder: Any, a: Any, factor: Any, total: Any) -> Any:
    kind = total.type
    suffix = f"v{WIDTH}" if isinstance(kind, ir.VectorType) else ""
    element = kind.element if suffix else kind
    name = f"llvm.fmuladd.{suffix}{'f32' if isinstance(element, ir.FloatType) else 'f64'}"
    function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(kind, [kind] * 3), name)
    return builder.call(function, [a, factor, total])
