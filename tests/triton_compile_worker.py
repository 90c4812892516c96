"""Compile the Triton kernels for one target, without a GPU: `triton_compile_worker.py TARGET [all]`.

Every launcher is compiled for every target; types and shapes of top-k and search are dealt out among
the targets, unless `all` are asked for.

The real launchers run on CPU tensors with a stub driver, and every launch ends at the compiled
binary. Prints one line, and fails if a kernel needs more than the device has.
"""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction
from triton_compile_inference import launch_decoder, launch_linear

from pykernels.kernels.attention import gpu as attention
from pykernels.kernels.attention.gpu_backward import attention_backward
from pykernels.kernels.attention.gpu_halo import halo
from pykernels.kernels.attention.gpu_halo_backward import halo_backward
from pykernels.kernels.attention.problem import Cache, Gradients, Lengths, Scoring, Window
from pykernels.kernels.fp8 import gpu
from pykernels.kernels.fp8.formats import FORMATS, OVERFLOWS, ROUNDINGS, SCALED_FORMATS, Recipe
from pykernels.kernels.search import gpu as search
from pykernels.kernels.tiered import cases, energy_cases
from pykernels.kernels.tiered import gpu as tiered
from pykernels.kernels.tiered.problem import TERMS
from pykernels.kernels.topk import gpu as topk
from pykernels.tiered import Tiers

TARGETS = {
    "sm_80": (GPUTarget("cuda", 80, 32), 166912),
    "sm_90": (GPUTarget("cuda", 90, 32), 232448),
    "sm_100": (GPUTarget("cuda", 100, 32), 232448),
    "gfx942": (GPUTarget("hip", "gfx942", 64), 65536),
}
SPILL_LIMIT = 64
"""Bytes that ptxas may spill to raise the occupancy; a tile that does not fit costs hundreds.
float64 is left out: some ptxas versions spill its division."""

ALL = slice(None)
NAMES = tuple(FORMATS)
SCALED = tuple(SCALED_FORMATS.values())
SCALES = (("fp32", torch.float32), ("pow2", torch.float32), ("e8m0", torch.uint8))
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


class StubDriver:
    """As much of a Triton driver as compilation asks for."""

    def __init__(self, target: GPUTarget) -> None:
        self.target = target

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return self.target


def collect(target: GPUTarget) -> dict[str, Any]:
    """The dictionary that launches fill with compiled kernels, by hash."""
    kernels: dict[str, Any] = {}
    run = JITFunction.run

    def compile_only(self: Any, *args: Any, warmup: bool = False, **options: Any) -> Any:
        kernel = run(self, *args, warmup=True, **options)
        kernels[kernel.hash] = kernel
        return kernel

    JITFunction.run = compile_only
    torch.empty, torch.empty_like = torch.zeros, torch.zeros_like  # launchers use indices that no kernel has written
    triton.runtime.driver.set_active(StubDriver(target))
    return kernels


def launch_elementwise() -> None:
    codes = torch.empty(64, dtype=torch.uint8)
    for turn, dtype in enumerate(DTYPES):
        x = torch.empty(64, dtype=dtype)
        for k, rounding in enumerate(ROUNDINGS):
            gpu.encode(x, codes, FORMATS[NAMES[(turn + k) % 4]], OVERFLOWS[k], rounding, 1)
        gpu.decode(codes, x, FORMATS[NAMES[turn]])
        for shape in ((1, 1 << 20, 1), (2, 1000, 100)):
            gpu.amax(torch.empty(shape, dtype=dtype), torch.empty(shape[0], shape[2], dtype=dtype))


GRANULARITIES = (
    ((1, 1, 1 << 20), (1, 1 << 20)),
    ((1, 300, 4096), (1, 4096)),
    ((1, 600, 40000), (1, 40000)),
    ((1, 512, 256), (512, 1)),
    ((1, 64, 4096), (1, 32)),
    ((1, 64, 1000), (1, 128)),
    ((1, 256, 1024), (128, 128)),
)


def launch_scaled() -> None:
    """Every granularity with every type and, in float32, every rounding; the other parameters take turns."""
    for (turn, (shape, block)), dtype in itertools.product(enumerate(GRANULARITIES), DTYPES):
        x = torch.empty(shape, dtype=dtype)
        codes = torch.empty(shape, dtype=torch.uint8)
        turn += DTYPES.index(dtype)
        for rounding in ROUNDINGS if dtype == torch.float32 else ROUNDINGS[turn % 3 :][:1]:
            scale_format, scale_dtype = SCALES[(turn + ROUNDINGS.index(rounding)) % 3]
            scale = torch.empty([triton.cdiv(n, b) for n, b in zip(shape, (1, *block), strict=True)], dtype=scale_dtype)
            recipe = Recipe(SCALED[turn % len(SCALED)], block, scale_format, "ceil", "sat", rounding, 1)
            gpu.quantize(x, codes, scale, recipe, True)
        if turn % 3 == 0:
            gpu.quantize(x, codes, scale, recipe, False)
        elif turn % 3 == 1:
            gpu.quantize_dequantize(x, torch.empty_like(x), scale, recipe, True)
        else:
            gpu.dequantize(codes, scale, torch.empty_like(x), recipe)


def outputs(dtype: torch.dtype, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.zeros(1, k, dtype=dtype), torch.zeros(1, k, dtype=torch.int64)


def launch_topk(dealt: slice) -> None:
    """Types through chunks; the rest of the cases in one type of each size."""
    integers = (torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8)
    for turn, dtype in list(enumerate((*DTYPES, *integers)))[dealt]:
        largest = turn % 2 == 0
        x = torch.zeros(1, 1 << 17, dtype=dtype)
        topk.topk(x, 60, largest, True, *outputs(dtype, 60))
    for turn, dtype in list(enumerate((torch.float16, torch.int64) * 2))[dealt]:
        largest, x = turn < 2, torch.zeros(1, 1 << 17, dtype=dtype)
        topk.topk(x, 3000, largest, False, *outputs(dtype, 3000))
        topk.topk(x, 1 << 16, largest, True, *outputs(dtype, 1 << 16))
        few = torch.zeros(1, 4000, dtype=dtype)
        topk.select(few, torch.zeros_like(few, dtype=torch.int64), 60, largest, *outputs(dtype, 60))
        for per_bin in (1, 4, 5):
            topk.partial_topk(x, 1024, per_bin, largest, *outputs(dtype, 1024 * per_bin))


def launch_search(dealt: slice) -> None:
    """Types with few and with many queries, the vectors in one piece and in blocks; the arguments take turns."""
    dtypes = (torch.float32, torch.float16, torch.bfloat16, torch.int8, torch.uint8)
    shapes = ((1, 128, 500), (300, 128, 5), (300, 1000, 5))
    for turn, (dtype, (Q, D, k)) in list(enumerate(itertools.product(dtypes, shapes)))[dealt]:
        x, q = torch.zeros(20000, D, dtype=dtype), torch.zeros(Q, D, dtype=dtype)
        factors = (None, None) if turn % 2 else (torch.zeros(len(x)), torch.zeros(len(x)))
        rows = torch.arange(len(x)) if turn % 5 == 0 else None
        mask = torch.zeros(Q, len(x), dtype=torch.bool) if turn % 4 == 0 else None
        scores, ids = torch.zeros(Q, k), torch.zeros(Q, k, dtype=torch.int64)
        search.search(q, x, *factors, rows, mask, 1 << 30, scores, ids)
        if D == 128:
            search.distances(q, x, factors[0], ids, scores)
            search.sums_of_squares(x, torch.zeros(len(x)))
        offsets, lengths = torch.arange(0, 21000, 1000), torch.ones(1, dtype=torch.int64)
        argmax = torch.zeros(1, 20, Q, dtype=torch.int64) if turn % 2 else None
        search.maxsim(q[None, :], lengths, x, rows, offsets, torch.zeros(1, 20), argmax)


def tensors(value: Any) -> Any:
    if isinstance(value, tuple):
        return type(value)(*map(tensors, value))
    return torch.from_numpy(value) if hasattr(value, "dtype") else value


def launch_tiered(dealt: slice) -> None:
    """Both pivots and dtypes; signs, cutoffs and the reaction field take turns."""
    tree = tensors(Tiers(**cases.tiers(100)).tree)
    sizes = len(tree.macro_of_group), len(tree.axis_anchor), len(tree.macro_ptr) - 1
    terms = {name: 9 for name in energy_cases.CLASSES}
    cutoffs = (energy_cases.Nonbonded(), energy_cases.Nonbonded(9.0, 9.0, 0.1, 0.1))
    combinations = itertools.product((torch.float32, torch.float64), (False, True))
    for turn, (dtype, whole) in list(enumerate(combinations))[dealt]:
        kind = str(dtype).removeprefix("torch.")
        x, motion = torch.zeros(2, 100, 3, dtype=dtype), tensors(cases.motion(2, *sizes, kind))
        tiered.transform(x, motion, tree, whole, torch.zeros_like(x))
        tiered.transform_backward(x, x, motion, tree, whole, motion, torch.zeros_like(x))
        tiered.adam(x, x, x, x, 0.1, 1, 0.9, 0.999, 1e-8, 1e11)
        system = tensors(energy_cases.system(100, 80, terms, kind, cutoffs[turn % 2], signed=whole))
        tiered.energy(x, system, True, torch.zeros(2, len(TERMS), dtype=torch.float64), torch.zeros_like(x))


def launch_attention(dealt: slice) -> None:
    """Sizes of heads in blocks of rows, and caches in chunks; features and types take turns, the first four of each."""
    first = ALL if dealt == ALL else slice(4)
    half, wide = torch.float16, torch.float32
    sizes = ((half, 256, 256), (half, 128, 128), (wide, 128, 64), (half, 192, 128), (half, 576, 512), (half, 64, 64))
    for turn, (dtype, D, Dv) in list(enumerate(sizes))[first][dealt]:
        q, k, v = (torch.zeros(1, heads, 256, width, dtype=dtype) for heads, width in ((4, D), (2, D), (2, Dv)))
        scoring, lengths = Scoring(0.1, right=0), Lengths()
        if turn % 3 == 0:
            table = torch.zeros(1, 4, 256, 256)
            scoring = Scoring(0.1, 30.0, 9, 0, False, torch.zeros(4), table, table > 0, torch.zeros(4))
        elif turn % 3 == 2:
            lengths = Lengths(*[torch.arange(0, 257, 64)] * 2, torch.zeros(4, dtype=torch.int64))
        attention.attention(q, k, v, scoring, lengths, torch.zeros(1, 4, 256, Dv, dtype=dtype), torch.zeros(1, 4, 256))
    stored = (torch.bfloat16, torch.int8, torch.uint8, torch.bfloat16, torch.float16, torch.int8, torch.uint8)
    for turn, dtype in list(enumerate(stored))[first][dealt]:
        q = torch.zeros(1, 16, 1 + turn, 128, dtype=dtype if dtype.is_floating_point else torch.bfloat16)
        k, table = torch.zeros(9, 2, (16, 64)[turn % 2], 128, dtype=dtype), torch.zeros(1, 99, dtype=torch.int64)
        scales = (None, None) if q.dtype == dtype else (torch.zeros(k.shape[:3]), torch.zeros(k.shape[:3]))
        scoring = Scoring(0.1, right=0, sinks=torch.zeros(16) if turn % 2 else None)
        cache = Cache(k, k, *scales, table, torch.zeros(1, dtype=torch.int64))
        attention.decode(q, cache, scoring, torch.zeros_like(q), torch.zeros(q.shape[:3]))


def launch_attention_backward(dealt: slice) -> None:
    """Plain, ragged, and with everything that a logit can have; types take turns."""
    cases = ((torch.bfloat16, 128, "plain"), (torch.float16, 64, "all"), (torch.float32, 64, "ragged"))
    for dtype, D, kind in list(cases)[dealt]:
        q, k, lse = (
            torch.zeros(1, 4, 256, D, dtype=dtype),
            torch.zeros(1, 2, 256, D, dtype=dtype),
            torch.zeros(1, 4, 256),
        )
        scoring, starts, bias = Scoring(0.1, right=0), None, None
        if kind == "all":
            bias, mask = torch.zeros(1, 1, 256, 256), torch.zeros(1, 1, 1, 256, dtype=torch.bool)
            whole = bias.expand(1, 4, 256, 256), mask.expand(1, 4, 256, 256)
            scoring = Scoring(0.1, 30.0, 9, 0, False, torch.zeros(4), *whole)
        elif kind == "ragged":
            starts = torch.arange(0, 257, 64)
        grads = Gradients(q, k, k, bias)
        attention_backward(q, lse, q, k, k, q, lse, scoring, Lengths(starts, starts), grads)


def launch_halo(dealt: slice) -> None:
    """Images forward and backward, with tables of both axes; types and sizes take turns."""
    cases = ((torch.bfloat16, 64, 8, 3), (torch.float16, 32, 14, 2), (torch.float32, 32, 8, 3))
    for dtype, D, block, reach in list(cases)[dealt]:
        x, lse = torch.zeros(1, 2, 32, 32, D, dtype=dtype), torch.zeros(1, 2, 32, 32)
        table, window = torch.zeros(2 * (block + reach) - 1, D, dtype=dtype), Window(block, reach)
        halo(x, x, x, table, table, window, 0.1, x, lse)
        halo_backward(x, x, x, x, table, table, window, 0.1, x, lse, x, x, x, table, table)


def spills(kernel: Any) -> int | None:
    """Bytes of local memory that a kernel spills to; None where the tool is absent."""
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    if "cubin" not in kernel.asm or not tool.exists():
        return None
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        usage = subprocess.run([tool, "-res-usage", file.name], capture_output=True, text=True, check=True).stdout
    return max(int(size) for size in re.findall(r"(?:STACK|LOCAL):(\d+)", usage))


def main(name: str, *options: str) -> None:
    target, limit = TARGETS[name]
    dealt = ALL if options == ("all",) else slice(list(TARGETS).index(name), None, len(TARGETS))
    kernels = collect(target)
    launch_elementwise()
    launch_scaled()
    launch_topk(dealt)
    launch_search(dealt)
    launch_tiered(dealt)
    launch_attention(dealt)
    launch_attention_backward(dealt)
    launch_halo(dealt)
    launch_linear(dealt)
    launch_decoder(dealt)
    if not kernels:
        sys.exit("no kernel was launched")
    shared = max(kernel.metadata.shared for kernel in kernels.values())
    sizes = [spills(kernel) for kernel in kernels.values() if "*fp64" not in kernel.src.signature.values()]
    checked = [size for size in sizes if size is not None]
    worst = max(checked, default=0)
    print(
        f"{name}: {len(kernels)} kernels; at most {shared} of {limit} bytes of shared memory; of {len(checked)} "
        f"checked, {sum(map(bool, checked))} spill registers, at most {worst} bytes"
    )
    if shared > limit or worst > SPILL_LIMIT:
        sys.exit("a kernel does not fit the device")


if __name__ == "__main__":
    main(*sys.argv[1:])
