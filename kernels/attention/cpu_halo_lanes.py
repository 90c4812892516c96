"""What relative positions add to a run of keys, and what a run gives back to their gradients.

A run is a number of neighbours in a row of the window: rows of `LANES` lanes, one after the other from `at`.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .._dot import FLOAT, VECTOR, array_data, load_vector, multiply_add, splat, store_vector
from .cpu_product import LANES

_INDEX = ir.IntType(64)
_FLOATS = ir.VectorType(FLOAT, VECTOR)
_VECTORS = range(0, LANES, VECTOR)


def _load(builder: Any, data: Any, position: Any) -> list[Any]:
    return [load_vector(builder, data, builder.add(position, _INDEX(v))) for v in _VECTORS]


def _store(builder: Any, values: list[Any], data: Any, position: Any) -> None:
    for v, value in zip(_VECTORS, values, strict=True):
        store_vector(builder, value, data, builder.add(position, _INDEX(v)))


def _variables(builder: Any, values: list[Any]) -> list[Any]:
    variables = [cgutils.alloca_once(builder, _FLOATS) for _ in values]
    for variable, value in zip(variables, values, strict=True):
        builder.store(value, variable)
    return variables


@intrinsic
def add_relative(
    typing_context: Any, s: Any, at: Any, keys: Any, scale: Any, height: Any, height_at: Any, width: Any, width_at: Any,
    highest: Any
) -> Any:  # fmt: skip
    """``s = scale s + height + width`` of a run, which all has the same `height`, and the maxima of lanes.

    `width` has a row of lanes for each key. NaN raises no maximum.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        s_data, height_data, width_data, highest_data = (
            array_data(context, builder, signature, args, i) for i in (0, 4, 6, 8)
        )
        _, at, keys, scale, _, height_at, _, width_at, _ = args
        factor = splat(builder, scale)
        heights = _load(builder, height_data, height_at)
        most = _variables(builder, _load(builder, highest_data, _INDEX(0)))
        with cgutils.for_range(builder, keys) as loop:
            step = builder.mul(loop.index, _INDEX(LANES))
            place = builder.add(at, step)
            widths = _load(builder, width_data, builder.add(width_at, step))
            logits = [
                multiply_add(builder, x, factor, builder.fadd(h, w))
                for x, h, w in zip(_load(builder, s_data, place), heights, widths, strict=True)
            ]
            _store(builder, logits, s_data, place)
            for variable, value in zip(most, logits, strict=True):
                before = builder.load(variable)
                builder.store(builder.select(builder.fcmp_ordered(">", value, before), value, before), variable)
        _store(builder, [builder.load(m) for m in most], highest_data, _INDEX(0))
        return context.get_dummy_value()

    index = types.intp
    return types.void(s, index, index, types.float32, height, index, width, index, highest), generate


@intrinsic
def logit_gradients(
    typing_context: Any, p: Any, dp: Any, at: Any, keys: Any, delta: Any, height: Any, height_at: Any, width: Any,
    width_at: Any
) -> Any:  # fmt: skip
    """``dp = p (dp - delta)`` of a run, whose sum goes to its row of `height`, and each key's to one of `width`."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        p_data, dp_data, delta_data, height_data, width_data = (
            array_data(context, builder, signature, args, i) for i in (0, 1, 4, 5, 7)
        )
        _, _, at, keys, _, _, height_at, _, width_at = args
        deltas = _load(builder, delta_data, _INDEX(0))
        totals = _variables(builder, _load(builder, height_data, height_at))
        with cgutils.for_range(builder, keys) as loop:
            step = builder.mul(loop.index, _INDEX(LANES))
            place, column = builder.add(at, step), builder.add(width_at, step)
            given = zip(_load(builder, p_data, place), _load(builder, dp_data, place), deltas, strict=True)
            ds = [builder.fmul(p, builder.fsub(dp, delta)) for p, dp, delta in given]
            _store(builder, ds, dp_data, place)
            for variable, value in zip(totals, ds, strict=True):
                builder.store(builder.fadd(builder.load(variable), value), variable)
            sums = [builder.fadd(a, b) for a, b in zip(_load(builder, width_data, column), ds, strict=True)]
            _store(builder, sums, width_data, column)
        _store(builder, [builder.load(t) for t in totals], height_data, height_at)
        return context.get_dummy_value()

    index = types.intp
    return types.void(p, dp, index, index, delta, height, index, width, index), generate
