"""The only place that configures Numba."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from types import FunctionType
from typing import Any

import numba
from llvmlite import ir
from numba import types
from numba.core import cgutils, codegen
from numba.extending import intrinsic
from numba.np.arrayobj import make_array, populate_array

_codegen: Any = codegen
_settings: Any = numba.config

SERIAL_BYTES = 1 << 17
"""Arrays that move fewer bytes than this are not worth waking a second thread for."""


def jit(function: Callable[..., Any] | None = None, *, parallel: bool = False) -> Any:
    """`numba.njit` without the GIL, with NumPy's division, cached on disk where a folder is writable.

    A cached kernel is stale as soon as any file of its family, or one that families share, has
    changed: Numba alone looks only at the file of the kernel itself and misses edited helpers.
    """
    if function is None:
        return lambda f: jit(f, parallel=parallel)
    return _compiled(function, nogil=True, error_model="numpy", parallel=parallel, fastmath=False)


def _compiled(function: Callable[..., Any], **options: Any) -> Any:
    """Options that are not set would be taken from the caller."""
    try:
        dispatcher = numba.njit(cache=True, **options)(function)
    except RuntimeError:
        return numba.njit(**options)(function)
    dispatcher._cache._cache_file._source_stamp = family_stamp(function)
    return dispatcher


def family_stamp(function: Callable[..., Any]) -> tuple[tuple[str, int, int], ...]:
    """What a file of compiled code is stale by; see `jit`."""
    family = Path(function.__code__.co_filename).parent
    files = [*sorted(Path(__file__).parent.glob("_*.py")), *sorted(family.glob("*.py"))]
    return tuple((f.name, f.stat().st_mtime_ns, f.stat().st_size) for f in files)


def cpu_features() -> frozenset[str]:
    """The extensions that Numba compiles for: the host's, unless NUMBA_CPU_FEATURES says otherwise."""
    if _settings.CPU_FEATURES is not None:
        features = str(_settings.CPU_FEATURES)
    else:
        features = "" if _settings.CPU_NAME == "generic" else str(_codegen.get_host_cpu_features())
    return frozenset(name[1:] for name in features.split(",") if name.startswith("+"))


def _plus(total, term):
    return total + term


plus = _compiled(_plus, nogil=True, error_model="numpy", fastmath={"reassoc"})
"""A sum whose order is free, so that a loop over it vectorises. The order depends on what was compiled
around the loop: for sums that are the same in any order, and `sums` for all others."""


class kernel:
    """A function that loops over `prange`, compiled for one thread and for all of them.

    Called with the number of bytes that it will move, then the function's arguments.
    """

    def __init__(self, function: Callable[..., None]) -> None:
        twin = FunctionType(function.__code__, function.__globals__, function.__name__ + "_parallel")
        twin.__qualname__ = twin.__name__  # the disk cache files kernels by name and does not see flags
        self.serial = jit(function)
        self.parallel = jit(twin, parallel=True)

    def __call__(self, nbytes: int, *args: Any) -> None:
        if nbytes < SERIAL_BYTES:
            self.serial(*args)
        else:
            in_turn(self.parallel, *args)


_turn = threading.Lock()


def in_turn(parallel: Any, *args: Any) -> None:
    """Call what runs in parallel; threading layers that abort on concurrent calls take turns."""
    if _concurrent():
        parallel(*args)
    else:
        with _turn:
            parallel(*args)


def _concurrent() -> bool:
    try:
        return bool(numba.threading_layer() != "workqueue")
    except ValueError:
        return False


def _shift(operation: str) -> Any:
    @intrinsic
    def shift(typing_context: Any, value: Any, amount: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return getattr(builder, operation)(args[0], args[1])

        return value(value, value), generate

    return shift


shift_left = _shift("shl")
shift_right = _shift("lshr")
"""Shifts that stay in their operand's width; Numba's own widen to 64 bits, which halves the lanes."""


def _bitcast(source: Any, target: Any, target_ir: Any) -> Any:
    @intrinsic
    def bitcast(typing_context: Any, value: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.bitcast(args[0], target_ir)

        return target(source), generate

    return bitcast


float32_from_bits = _bitcast(types.uint32, types.float32, ir.FloatType())
bits_from_float32 = _bitcast(types.float32, types.uint32, ir.IntType(32))
float64_from_bits = _bitcast(types.uint64, types.float64, ir.DoubleType())
bits_from_float64 = _bitcast(types.float64, types.uint64, ir.IntType(64))

CACHE_LINE = 64
LANES, WIDE = 32, 128
"""Elements of runs of constant length; LLVM splits them into the machine's registers."""


def _max_of(count: int) -> Any:
    @intrinsic
    def max_of(typing_context: Any, x: Any, first: Any, mask: Any) -> Any:
        """Largest ``x[i] & mask`` of a constant number of elements from `first`; `mask` is unsigned.

        A loop over a constant 32 elements is unrolled before it can be vectorised, and one over a
        variable length pays for its remainders; this is neither.
        """

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            bits = x.dtype.bitwidth
            lanes_ir = ir.VectorType(ir.IntType(bits), count)
            data = make_array(x)(context, builder, args[0]).data
            pointer = builder.bitcast(builder.gep(data, [args[1]]), lanes_ir.as_pointer())
            lanes = builder.and_(builder.load(pointer, align=bits // 8), _splat(builder, args[2], lanes_ir))
            reduction = ir.FunctionType(ir.IntType(bits), [lanes_ir])
            name = f"llvm.vector.reduce.umax.v{count}i{bits}"
            return builder.call(cgutils.get_or_insert_function(builder.module, reduction, name), [lanes])

        return mask(x, types.intp, mask), generate

    return max_of


max_of_lanes, max_of_wide = _max_of(LANES), _max_of(WIDE)


@intrinsic
def sums(typing_context: Any, like: Any, rows: Any, lanes: Any) -> Any:
    """Zeros (rows, lanes) of the dtype of `like`, on the stack of the function that asks for them.

        total = sums(x, 1, 16)
        for i in range(16):
            total[0, i] += x[i]
        return sum_of_lanes(total, 0, 16)

    Sums whose lanes are written out vectorise in the order that is written; `plus` leaves it to the compiler.
    """
    if not (isinstance(rows, types.IntegerLiteral) and isinstance(lanes, types.IntegerLiteral)):
        return None
    dtype, shape = like.dtype, (rows.literal_value, lanes.literal_value)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        word, size = ir.IntType(64), dtype.bitwidth // 8
        element = context.get_value_type(dtype)
        memory = cgutils.alloca_once(builder, ir.ArrayType(element, shape[0] * shape[1]))
        memory.align = CACHE_LINE
        builder.store(ir.Constant(memory.type.pointee, None), memory)
        array = make_array(signature.return_type)(context, builder)
        populate_array(
            array,
            data=builder.bitcast(memory, element.as_pointer()),
            shape=[word(n) for n in shape],
            strides=[word(shape[1] * size), word(size)],
            itemsize=word(size),
            meminfo=None,
        )
        return array._getvalue()

    return types.Array(dtype, 2, "C")(like, rows, lanes), generate


@intrinsic
def sum_of_lanes(typing_context: Any, x: Any, row: Any, lanes: Any) -> Any:
    """The sum of a row of `sums`, of a power of two of lanes: of its halves, of the halves of those, and so on."""
    if not isinstance(lanes, types.IntegerLiteral):
        return None
    count = lanes.literal_value

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        lanes_ir = ir.VectorType(context.get_value_type(x.dtype), count)
        data = make_array(x)(context, builder, args[0]).data
        pointer = builder.gep(data, [builder.mul(args[1], args[1].type(count))])
        total = builder.load(builder.bitcast(pointer, lanes_ir.as_pointer()), align=x.dtype.bitwidth // 8)
        while total.type.count > 1:
            half = total.type.count // 2
            low, high = (ir.Constant(ir.VectorType(ir.IntType(32), half), list(range(i, i + half))) for i in (0, half))
            total = builder.fadd(builder.shuffle_vector(total, total, low), builder.shuffle_vector(total, total, high))
        return builder.extract_element(total, ir.IntType(32)(0))

    return x.dtype(x, types.intp, lanes), generate


def prefetch(builder: Any, data: Any, element: Any) -> None:
    """Emit a request for the cache line of an element."""
    byte, word = ir.IntType(8).as_pointer(), ir.IntType(32)
    declared = ir.FunctionType(ir.VoidType(), [byte, word, word, word])
    function = cgutils.get_or_insert_function(builder.module, declared, "llvm.prefetch.p0i8")
    place = builder.bitcast(builder.gep(data, [element]), byte)
    builder.call(function, [place, word(0), word(2), word(1)])  # read, level 2, data


@intrinsic
def prefetch_lanes(typing_context: Any, x: Any, first: Any) -> Any:
    """Ask for the `LANES` elements of `x` from `first`, which may lie past the end, to come to cache.

    Worth it where a pass over data in cache would leave the memory idle.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = make_array(x)(context, builder, args[0]).data
        for line in range(0, LANES, CACHE_LINE * 8 // x.dtype.bitwidth):
            prefetch(builder, data, builder.add(args[1], args[1].type(line)))
        return context.get_dummy_value()

    return types.void(x, types.intp), generate


def _splat(builder: Any, value: Any, lanes_ir: Any) -> Any:
    undefined = ir.Constant(lanes_ir, ir.Undefined)
    single = builder.insert_element(undefined, value, ir.IntType(32)(0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), lanes_ir.count), None)
    return builder.shuffle_vector(single, undefined, zeros)
