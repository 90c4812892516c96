"""Vectors of three float32 or float64 in one register, as values of jitted code.

    turned = column_x * x
    turned = multiply_add(turned, column_y, y)
    store(load(points, i) + turned, out, i)

Arrays hold them as three neighbouring elements. A 3 x 3 matrix is the tuple of its rows.
"""

from __future__ import annotations

import operator
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, lower_builtin, models, register_model, type_callable
from numba.np.arrayobj import make_array

from ._numba import jit

_LANE, _INDEX = ir.IntType(32), ir.IntType(64)


class Vector(types.Type):  # type: ignore[misc]
    def __init__(self, dtype: Any) -> None:
        self.dtype = dtype
        super().__init__(name=f"Vector({dtype})")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, fe_type: Any) -> None:
        super().__init__(manager, fe_type, ir.VectorType(manager.lookup(fe_type.dtype).get_value_type(), 3))


def _define(operation: Any, instruction: str) -> None:
    @type_callable(operation)
    def type_of_sum(context: Any) -> Any:
        return lambda a, b: a if isinstance(a, Vector) and a == b else None

    @lower_builtin(operation, Vector, Vector)
    def lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return getattr(builder, instruction)(*args)


_define(operator.add, "fadd")
_define(operator.sub, "fsub")


@type_callable(operator.mul)
def _type_of_product(context: Any) -> Any:
    return lambda a, b: a if isinstance(a, Vector) and a.dtype == b else None


@lower_builtin(operator.mul, Vector, types.Float)
def _scale(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    return builder.fmul(args[0], _splat(builder, args[1]))


@intrinsic
def multiply_add(typing_context: Any, total: Any, a: Any, factor: Any) -> Any:
    """total + a * factor, rounded once where the processor can: of vectors and a number, or of numbers."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        total_value, a_value, factor_value = args
        kind, name = a_value.type, f"llvm.fmuladd.f{factor.bitwidth}"
        if isinstance(a, Vector):
            factor_value, name = _splat(builder, factor_value), f"llvm.fmuladd.v3f{factor.bitwidth}"
        function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(kind, [kind] * 3), name)
        return builder.call(function, [a_value, factor_value, total_value])

    return total(total, a, factor), generate


@intrinsic
def load(typing_context: Any, x: Any, i: Any) -> Any:
    """Elements 3 i to 3 i + 2 of a C-contiguous array."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = _pointer(context, builder, x, args[0], args[1])
        return builder.load(pointer, align=x.dtype.bitwidth // 8)

    return Vector(x.dtype)(x, types.intp), generate


@intrinsic
def element(typing_context: Any, x: Any, i: Any) -> Any:
    """x[i], for i that is not negative."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load(builder.gep(make_array(x)(context, builder, args[0]).data, [args[1]]))

    return x.dtype(x, types.intp), generate


@intrinsic
def store(typing_context: Any, value: Any, x: Any, i: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.store(args[0], _pointer(context, builder, x, args[1], args[2]), align=x.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(value, x, types.intp), generate


@intrinsic
def zero(typing_context: Any, x: Any) -> Any:
    """The vector of zeros of an array's dtype."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return ir.Constant(context.get_value_type(signature.return_type), None)

    return Vector(x.dtype)(x), generate


@intrinsic
def vector(typing_context: Any, x: Any, y: Any, z: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        value = ir.Constant(ir.VectorType(args[0].type, 3), ir.Undefined)
        for lane, element in enumerate(args):
            value = builder.insert_element(value, element, _LANE(lane))
        return value

    return Vector(x)(x, x, x), generate


@intrinsic
def parts(typing_context: Any, a: Any) -> Any:
    """The three elements."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        elements = [builder.extract_element(args[0], _LANE(lane)) for lane in range(3)]
        return context.make_tuple(builder, signature.return_type, elements)

    return types.UniTuple(a.dtype, 3)(a), generate


@intrinsic
def _rolled(typing_context: Any, a: Any) -> Any:
    """(y, z, x)"""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        order = ir.Constant(ir.VectorType(_LANE, 3), [_LANE(1), _LANE(2), _LANE(0)])
        return builder.shuffle_vector(args[0], args[0], order)

    return a(a), generate


@jit
def dot(a, b):
    x, y, z = parts(a)
    u, v, w = parts(b)
    return x * u + y * v + z * w


@intrinsic
def _product(typing_context: Any, a: Any, b: Any) -> Any:
    """Element by element."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fmul(*args)

    return a(a, b), generate


@jit
def cross(a, b):
    return _rolled(_product(a, _rolled(b)) - _product(_rolled(a), b))


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


@jit
def load_matrix(x, i):
    return load(x, i), load(x, i + 1), load(x, i + 2)


@jit
def store_matrix(m, x, i):
    store(m[0], x, i)
    store(m[1], x, i + 1)
    store(m[2], x, i + 2)


def _pointer(context: Any, builder: Any, x: Any, array: Any, i: Any) -> Any:
    data = make_array(x)(context, builder, array).data
    first = builder.gep(data, [builder.mul(i, _INDEX(3))])
    return builder.bitcast(first, ir.VectorType(data.type.pointee, 3).as_pointer())


def _splat(builder: Any, value: Any) -> Any:
    undefined = ir.Constant(ir.VectorType(value.type, 3), ir.Undefined)
    single = builder.insert_element(undefined, value, _LANE(0))
    return builder.shuffle_vector(single, undefined, ir.Constant(ir.VectorType(_LANE, 3), None))
