"""How `_vector`'s vectors come from memory and go there.

    places = members(tile, batch, 3 * n)
    scatter(gather(points, places, i) * 2, points, places, i)

Scratch memory is an array (n, 3, WIDTH) of vectors, or (n * WIDTH) of lanes.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

from ._numba import jit
from ._vector import WIDTH, Lanes, Vector, coordinates, pack

_LANE, _INDEX = ir.IntType(32), ir.IntType(64)
_HALF, _POINT = WIDTH // 2, 4

_LOW_PAIRS, _HIGH_PAIRS = (0, 8, 1, 9, 4, 12, 5, 13), (2, 10, 3, 11, 6, 14, 7, 15)
_LOW_HALVES, _HIGH_HALVES = (0, 1, 8, 9, 4, 5, 12, 13), (2, 3, 10, 11, 6, 7, 14, 15)
_FIRST, _SECOND = (0, 1, 8, 8, 4, 5, 12, 12), (2, 3, 9, 9, 6, 7, 13, 13)
_THIRD, _FOURTH = (0, 1, 10, 10, 4, 5, 14, 14), (2, 3, 11, 11, 6, 7, 15, 15)
"""Shuffles within the halves of registers, where the points of lanes l and l + 4 are next to each other."""


@intrinsic
def members(typing_context: Any, tile: Any, count: Any, size: Any) -> Any:
    """Where the conformations of a tile begin in an array of `count` runs of so many elements.

    Those beyond the last are the last once more: their lanes repeat what its lane does, to the same bits.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        first, last = builder.mul(args[0], _INDEX(WIDTH)), builder.sub(args[1], _INDEX(1))
        places = []
        for lane in range(WIDTH):
            member = builder.add(first, _INDEX(lane))
            member = builder.select(builder.icmp_signed("<", member, last), member, last)
            places.append(builder.mul(member, args[2]))
        return context.make_tuple(builder, signature.return_type, places)

    return types.UniTuple(types.intp, WIDTH)(types.intp, types.intp, types.intp), generate


@intrinsic
def gather(typing_context: Any, x: Any, members: Any, i: Any) -> Any:
    """Elements 3 i to 3 i + 2 of each conformation."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        points = [_load_point(builder, at) for at in _places(context, builder, x, args[0], args[1], args[2])]
        a, b, c, d = (_shuffle(builder, points[lane], points[lane + _HALF], range(WIDTH)) for lane in range(_HALF))
        low, high = _shuffle(builder, a, b, _LOW_PAIRS), _shuffle(builder, c, d, _LOW_PAIRS)
        last = _shuffle(builder, a, b, _HIGH_PAIRS), _shuffle(builder, c, d, _HIGH_PAIRS)
        return pack(
            builder,
            [
                _shuffle(builder, low, high, _LOW_HALVES),
                _shuffle(builder, low, high, _HIGH_HALVES),
                _shuffle(builder, *last, _LOW_HALVES),
            ],
        )

    return Vector(x.dtype)(x, members, types.intp), generate


@intrinsic
def scatter(typing_context: Any, value: Any, x: Any, members: Any, i: Any) -> Any:
    """Make `value` the elements 3 i to 3 i + 2 of each conformation."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        a, b, c = coordinates(context, builder, value, args[0], value.dtype)
        low, high = _shuffle(builder, a, b, _LOW_PAIRS), _shuffle(builder, a, b, _HIGH_PAIRS)
        pairs = [_shuffle(builder, low, c, order) for order in (_FIRST, _SECOND)]
        pairs += [_shuffle(builder, high, c, order) for order in (_THIRD, _FOURTH)]
        places = _places(context, builder, x, args[1], args[2], args[3])
        for lane, place in enumerate(places):
            pair, half = pairs[lane % _HALF], lane // _HALF * _POINT
            _store_point(builder, _shuffle(builder, pair, pair, range(half, half + _POINT)), place)
        return context.get_dummy_value()

    return types.void(value, x, members, types.intp), generate


@intrinsic
def copy_point(typing_context: Any, x: Any, members: Any, out: Any, out_members: Any, i: Any) -> Any:
    """scatter(gather(x, members, i), out, out_members, i)"""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        points = [_load_point(builder, at) for at in _places(context, builder, x, args[0], args[1], args[4])]
        places = _places(context, builder, out, args[2], args[3], args[4])
        for point, place in zip(points, places, strict=True):
            _store_point(builder, point, place)
        return context.get_dummy_value()

    return types.void(x, members, out, out_members, types.intp), generate


@intrinsic
def gather_number(typing_context: Any, x: Any, members: Any, i: Any) -> Any:
    """Element i of each conformation."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        value = ir.Constant(context.get_value_type(signature.return_type), ir.Undefined)
        for lane, at in enumerate(_places(context, builder, x, args[0], args[1], args[2], size=1)):
            value = builder.insert_element(value, builder.load(at), _LANE(lane))
        return value

    return Lanes(x.dtype)(x, members, types.intp), generate


@intrinsic
def scatter_number(typing_context: Any, value: Any, x: Any, members: Any, i: Any) -> Any:
    """Make `value` the element i of each conformation."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        for lane, at in enumerate(_places(context, builder, x, args[1], args[2], args[3], size=1)):
            builder.store(builder.extract_element(args[0], _LANE(lane)), at)
        return context.get_dummy_value()

    return types.void(value, x, members, types.intp), generate


def _load_from(kind: Any, values: int) -> Any:
    @intrinsic
    def load_from(typing_context: Any, x: Any, i: Any) -> Any:
        """The vector, or the lanes, at place i of scratch memory."""

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            lanes = _scratch(context, builder, x, args[0], args[1], values)
            loaded = [builder.load(at, align=x.dtype.bitwidth // 8) for at in lanes]
            return pack(builder, loaded) if values > 1 else loaded[0]

        return kind(x.dtype)(x, types.intp), generate

    return load_from


load, load_lanes = _load_from(Vector, 3), _load_from(Lanes, 1)


@intrinsic
def store(typing_context: Any, value: Any, x: Any, i: Any) -> Any:
    """Keep a vector, or lanes, at place i of scratch memory."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        lanes = coordinates(context, builder, value, args[0], value.dtype)
        count = 3 if isinstance(value, Vector) else 1
        for at, each in zip(_scratch(context, builder, x, args[1], args[2], count), lanes[:count], strict=True):
            builder.store(each, at, align=x.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(value, x, types.intp), generate


@intrinsic
def element(typing_context: Any, x: Any, i: Any) -> Any:
    """x[i], for i that is not negative."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load(builder.gep(make_array(x)(context, builder, args[0]).data, [args[1]]))

    return x.dtype(x, types.intp), generate


@jit
def load_matrix(x, i):
    return load(x, i), load(x, i + 1), load(x, i + 2)


@jit
def store_matrix(m, x, i):
    store(m[0], x, i)
    store(m[1], x, i + 1)
    store(m[2], x, i + 2)


def _scratch(context: Any, builder: Any, x: Any, array: Any, i: Any, count: int) -> list[Any]:
    data = make_array(x)(context, builder, array).data
    lanes = ir.VectorType(data.type.pointee, WIDTH).as_pointer()
    first = builder.bitcast(builder.gep(data, [builder.mul(i, _INDEX(WIDTH * count))]), lanes)
    return [builder.gep(first, [_INDEX(k)]) for k in range(count)]


def _places(context: Any, builder: Any, x: Any, array: Any, members: Any, i: Any, size: int = 3) -> list[Any]:
    """Pointers to a thing of so many elements in each conformation."""
    data = make_array(x)(context, builder, array).data
    offset = builder.mul(i, _INDEX(size))
    starts = [builder.gep(data, [start]) for start in cgutils.unpack_tuple(builder, members, WIDTH)]
    return [builder.gep(start, [offset]) for start in starts]


def _masked(builder: Any, place: Any) -> tuple[Any, str, Any]:
    """A pointer to a register whose last lane is not there, a suffix of names, and the mask."""
    element = place.type.pointee
    kind = ir.VectorType(element, _POINT)
    lanes = f"v{_POINT}f{_bits(element)}"
    mask = ir.Constant(ir.VectorType(ir.IntType(1), _POINT), [1, 1, 1, 0])
    return builder.bitcast(place, kind.as_pointer()), f"{lanes}.p0{lanes}", mask


def _bits(element: Any) -> int:
    return 32 if isinstance(element, ir.FloatType) else 64


def _load_point(builder: Any, place: Any) -> Any:
    pointer, suffix, mask = _masked(builder, place)
    kind = pointer.type.pointee
    declared = ir.FunctionType(kind, [pointer.type, _LANE, mask.type, kind])
    function = cgutils.get_or_insert_function(builder.module, declared, f"llvm.masked.load.{suffix}")
    alignment = _LANE(_bits(kind.element) // 8)
    return builder.call(function, [pointer, alignment, mask, ir.Constant(kind, ir.Undefined)])


def _store_point(builder: Any, value: Any, place: Any) -> None:
    pointer, suffix, mask = _masked(builder, place)
    declared = ir.FunctionType(ir.VoidType(), [value.type, pointer.type, _LANE, mask.type])
    function = cgutils.get_or_insert_function(builder.module, declared, f"llvm.masked.store.{suffix}")
    builder.call(function, [value, pointer, _LANE(_bits(value.type.element) // 8), mask])


def _shuffle(builder: Any, a: Any, b: Any, order: Any) -> Any:
    mask = ir.Constant(ir.VectorType(_LANE, len(order)), [_LANE(i) for i in order])
    return builder.shuffle_vector(a, b, mask)
