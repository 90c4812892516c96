"""Vector operations of the search kernels: comparison of scores, few dot products."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .._dot import FLOAT, HALF, LANES, VECTOR, WORD, array_data, load_vector, multiply_add, splat, store_vector
from .._widen import load_floats

FEW, FEW_ROWS = 4, 4
"""Queries so few that a pass over the database takes them one by one, and the rows that it takes at a time."""

_INDEX = ir.IntType(64)
_FLOATS = ir.VectorType(FLOAT, VECTOR)


def _products(count: int) -> Any:
    @intrinsic
    def products(typing_context: Any, x: Any, starts: Any, q: Any, at: Any, steps: Any, out: Any) -> Any:
        """Add to ``out[r]`` the product of ``x[starts[r] :]`` and the float32 ``q[at :]``, of `steps` > 0 vectors.

        For the constant number of rows r.
        """

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            data, starts, query, target = (array_data(context, builder, signature, args, i) for i in (0, 1, 2, 5))
            at, steps = args[3], args[4]
            rows = [builder.load(builder.gep(starts, [_INDEX(r)])) for r in range(count)]
            entry, body, done = builder.block, *(builder.append_basic_block(f"few.{n}") for n in ("body", "done"))
            builder.branch(body)
            builder.position_at_end(body)
            step = builder.phi(_INDEX)
            step.add_incoming(_INDEX(0), entry)
            sums = [builder.phi(_FLOATS) for _ in range(count)]
            position = builder.mul(step, _INDEX(VECTOR))
            factor = load_vector(builder, query, builder.add(at, position))
            totals = []
            for row, total in zip(rows, sums, strict=True):
                value = load_floats(builder, signature.args[0].dtype, data, builder.add(row, position))
                totals.append(multiply_add(builder, value, factor, total))
                total.add_incoming(ir.Constant(_FLOATS, None), entry)
                total.add_incoming(totals[-1], body)
            following = builder.add(step, _INDEX(1))
            step.add_incoming(following, body)
            builder.cbranch(builder.icmp_signed("<", following, steps), body, done)
            builder.position_at_end(done)
            declared = ir.FunctionType(FLOAT, [FLOAT, _FLOATS])
            reduce = cgutils.get_or_insert_function(builder.module, declared, f"llvm.vector.reduce.fadd.v{VECTOR}f32")
            for r, total in enumerate(totals):
                element = builder.gep(target, [_INDEX(r)])
                value = builder.call(reduce, [FLOAT(-0.0), total], fastmath=["reassoc"])
                builder.store(builder.fadd(builder.load(element), value), element)
            return context.get_dummy_value()

        return types.void(x, starts, q, types.intp, types.intp, out), generate

    return products


few_products, one_product = _products(FEW_ROWS), _products(1)


def _above(columns: int) -> Any:
    vectors = range(columns // VECTOR)

    @intrinsic
    def above(typing_context: Any, scores: Any, first: Any, count: Any, bounds: Any, allowed: Any) -> Any:
        """Lanes, as bits, where one of the `count` > 0 rows of `scores` from `first` exceeds its lane's bound.

        Row r counts in the lanes whose bits are set in the uint32 ``allowed[r]``; NaN exceeds nothing.
        """

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            data, bound_data, allowed_data = (array_data(context, builder, signature, args, i) for i in (0, 3, 4))
            bounds = [load_vector(builder, bound_data, _INDEX(v * VECTOR)) for v in vectors]
            last = builder.add(args[1], args[2])
            entry, body, done = builder.block, *(builder.append_basic_block(f"above.{n}") for n in ("body", "done"))
            builder.branch(body)
            builder.position_at_end(body)
            row, before = builder.phi(_INDEX), builder.phi(WORD)
            row.add_incoming(args[1], entry)
            before.add_incoming(WORD(0), entry)
            found = WORD(0)
            for v in vectors:
                position = builder.add(builder.mul(row, _INDEX(columns)), _INDEX(v * VECTOR))
                larger = builder.fcmp_ordered(">", load_vector(builder, data, position), bounds[v])
                bits = builder.zext(builder.bitcast(larger, ir.IntType(VECTOR)), WORD)
                found = builder.or_(found, builder.shl(bits, WORD(v * VECTOR)))
            found = builder.and_(found, builder.load(builder.gep(allowed_data, [row])))
            found = builder.or_(found, before)
            following = builder.add(row, _INDEX(1))
            row.add_incoming(following, body)
            before.add_incoming(found, body)
            builder.cbranch(builder.icmp_signed("<", following, last), body, done)
            builder.position_at_end(done)
            return found

        return types.uint32(scores, types.intp, types.intp, bounds, allowed), generate

    return above


above_lanes, above_half = _above(LANES), _above(HALF)


def _largest(columns: int) -> Any:
    vectors = range(columns // VECTOR)

    @intrinsic
    def largest(typing_context: Any, scores: Any, first: Any, count: Any, maxima: Any) -> Any:
        """Raise each of the `maxima` to the largest of its lane in `count` > 0 rows of `scores` from `first`.

        NaN is passed over.
        """

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            data, target = (array_data(context, builder, signature, args, i) for i in (0, 3))
            last = builder.add(args[1], args[2])
            before = [load_vector(builder, target, _INDEX(v * VECTOR)) for v in vectors]
            entry, body, done = builder.block, *(builder.append_basic_block(f"largest.{n}") for n in ("body", "done"))
            builder.branch(body)
            builder.position_at_end(body)
            row = builder.phi(_INDEX)
            row.add_incoming(args[1], entry)
            running = [builder.phi(_FLOATS) for _ in vectors]
            found = []
            for v in vectors:
                position = builder.add(builder.mul(row, _INDEX(columns)), _INDEX(v * VECTOR))
                score = load_vector(builder, data, position)
                found.append(builder.select(builder.fcmp_ordered(">", score, running[v]), score, running[v]))
                running[v].add_incoming(before[v], entry)
                running[v].add_incoming(found[v], body)
            following = builder.add(row, _INDEX(1))
            row.add_incoming(following, body)
            builder.cbranch(builder.icmp_signed("<", following, last), body, done)
            builder.position_at_end(done)
            for v in vectors:
                store_vector(builder, found[v], target, _INDEX(v * VECTOR))
            return context.get_dummy_value()

        return types.void(scores, types.intp, types.intp, maxima), generate

    return largest


largest_lanes, largest_half = _largest(LANES), _largest(HALF)


def _rescaled(columns: int) -> Any:
    @intrinsic
    def rescale(typing_context: Any, scores: Any, row: Any, factor: Any, term: Any) -> Any:
        """``scores[row] = scores[row] * factor + term``, in float32."""

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            data = array_data(context, builder, signature, args, 0)
            factor, term = (splat(builder, value) for value in args[2:])
            first = builder.mul(args[1], _INDEX(columns))
            for v in range(columns // VECTOR):
                position = builder.add(first, _INDEX(v * VECTOR))
                value = multiply_add(builder, load_vector(builder, data, position), factor, term)
                store_vector(builder, value, data, position)
            return context.get_dummy_value()

        return types.void(scores, types.intp, types.float32, types.float32), generate

    return rescale


rescale_lanes, rescale_half = _rescaled(LANES), _rescaled(HALF)
