"""Register tiles of dot products: a dozen rows in memory against a block of packed columns.

A block holds one vector lane per column, element [step][lane], so that a step of the product is a
load of the block and one multiply-add for each row, whose element is broadcast. Rows are named by
their offsets in memory; they may lie anywhere and need no packing. The dot products of a column do
not depend on its neighbours: each is one chain of multiply-adds, in the order of the steps.

A step is one float32, or a word of two bfloat16 or four int8 where the processor has instructions
for their products. Sums are float32; of int8, exact in int32 and then float32.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

from ._numba import cpu_features

_FEATURES = cpu_features()
PAIRS = "avx512bf16" in _FEATURES
QUADS = "avx512vnni" in _FEATURES
"""Whether products of bfloat16 pairs, of int8 quadruples, are one instruction."""

ROWS, LANES = (12, 32) if "avx512f" in _FEATURES else (6, 16)
HALF = 16
"""Rows and columns of a tile, whose sums fill the vector registers but for a few; columns of a narrow one."""

FLOAT, WORD = ir.FloatType(), ir.IntType(32)
_INDEX = ir.IntType(64)
VECTOR = 16
"""Lanes of the vectors in LLVM's code; it splits them into the machine's registers."""


class BFloat(ir.types.Type):  # type: ignore[misc]
    """LLVM's bfloat, which llvmlite does not have."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BFloat)

    def __hash__(self) -> int:
        return hash(BFloat)


def multiply_add(builder: Any, a: Any, b: Any, total: Any) -> Any:
    return _call(builder, f"llvm.fmuladd.v{VECTOR}f32", a, b, total)


def multiply_add_pairs(builder: Any, a: Any, b: Any, total: Any) -> Any:
    lanes = ir.VectorType(BFloat(), 2 * VECTOR)
    a, b = builder.bitcast(a, lanes), builder.bitcast(b, lanes)
    return _call(builder, "llvm.x86.avx512bf16.dpbf16ps.512", total, a, b)


def multiply_add_quads(builder: Any, a: Any, b: Any, total: Any) -> Any:
    """Of words of four: int8 in `a`, uint8 in `b`."""
    return _call(builder, "llvm.x86.avx512.vpdpbusd.512", total, b, a)


def _call(builder: Any, name: str, *args: Any) -> Any:
    result = next(a.type for a in args if a.type.element in (FLOAT, WORD))
    declared = ir.FunctionType(result, [a.type for a in args])
    return builder.call(cgutils.get_or_insert_function(builder.module, declared, name), args)


def splat(builder: Any, value: Any) -> Any:
    undefined = ir.Constant(ir.VectorType(value.type, VECTOR), ir.Undefined)
    single = builder.insert_element(undefined, value, WORD(0))
    return builder.shuffle_vector(single, undefined, ir.Constant(ir.VectorType(WORD, VECTOR), None))


def load_vector(builder: Any, data: Any, position: Any) -> Any:
    pointer = builder.gep(data, [position])
    lanes = ir.VectorType(data.type.pointee, VECTOR)
    return builder.load(builder.bitcast(pointer, lanes.as_pointer()), align=1)


def store_vector(builder: Any, value: Any, data: Any, position: Any) -> None:
    pointer = builder.gep(data, [position])
    builder.store(value, builder.bitcast(pointer, value.type.as_pointer()), align=1)


def array_data(context: Any, builder: Any, signature: Any, args: Any, i: int) -> Any:
    """The data pointer of argument `i` of an intrinsic."""
    return make_array(signature.args[i])(context, builder, args[i]).data


def _tile(columns: int, product: Any) -> Any:
    vectors = columns // VECTOR

    @intrinsic
    def tile(
        typing_context: Any, x: Any, starts: Any, first: Any, block: Any, initial: Any, steps: Any, out: Any
    ) -> Any:
        """``out[first + r, lane] = sum_s x[starts[first + r] + s] * block[s, lane]`` for `ROWS` rows.

        All arrays are vectors; `steps` is positive. The instruction for int8 takes the block as
        uint8; the int32 ``initial[first + r]`` is what the sums of a row begin with, to make up for it.
        """

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            x_data, starts_data, block_data, initial_data, out_data = (
                array_data(context, builder, signature, args, i) for i in (0, 1, 3, 4, 6)
            )
            first_row, count = args[2], args[5]
            rows = []
            for r in range(ROWS):
                offset = builder.load(builder.gep(starts_data, [builder.add(first_row, _INDEX(r))]))
                rows.append(builder.gep(x_data, [offset]))
            start = [ir.Constant(ir.VectorType(FLOAT, VECTOR), None)] * ROWS
            if product is multiply_add_quads:
                words = (builder.gep(initial_data, [builder.add(first_row, _INDEX(r))]) for r in range(ROWS))
                start = [splat(builder, builder.load(word)) for word in words]
            entry = builder.block
            body = builder.append_basic_block("product")
            done = builder.append_basic_block("product.done")
            builder.branch(body)
            builder.position_at_end(body)
            step = builder.phi(_INDEX)
            step.add_incoming(_INDEX(0), entry)
            sums = [[builder.phi(start[r].type) for _ in range(vectors)] for r in range(ROWS)]
            columns_at = builder.mul(step, _INDEX(columns))
            lanes = [
                load_vector(builder, block_data, builder.add(columns_at, _INDEX(v * VECTOR))) for v in range(vectors)
            ]
            following = builder.add(step, _INDEX(1), flags=["nuw", "nsw"])
            for r in range(ROWS):
                value = splat(builder, builder.load(builder.gep(rows[r], [step])))
                for v in range(vectors):
                    total = product(builder, value, lanes[v], sums[r][v])
                    sums[r][v].add_incoming(start[r], entry)
                    sums[r][v].add_incoming(total, body)
                    sums[r][v] = total
            step.add_incoming(following, body)
            builder.cbranch(builder.icmp_signed("<", following, count), body, done)
            builder.position_at_end(done)
            for r in range(ROWS):
                row_at = builder.mul(builder.add(first_row, _INDEX(r)), _INDEX(columns))
                for v in range(vectors):
                    total = sums[r][v]
                    if product is multiply_add_quads:
                        total = builder.sitofp(total, ir.VectorType(FLOAT, VECTOR))
                    store_vector(builder, total, out_data, builder.add(row_at, _INDEX(v * VECTOR)))
            return context.get_dummy_value()

        return types.void(x, starts, types.intp, block, initial, types.intp, out), generate

    return tile


floats, floats_half = _tile(LANES, multiply_add), _tile(HALF, multiply_add)
pairs, pairs_half = _tile(LANES, multiply_add_pairs), _tile(HALF, multiply_add_pairs)
quads, quads_half = _tile(LANES, multiply_add_quads), _tile(HALF, multiply_add_quads)
