"""The Triton kernels of the linear family against the definition, in the interpreter where there is no GPU."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

pytest.importorskip("triton")
import torch

from pykernels.kernels.linear import gpu, gpu_large, gpu_rows, gpu_tile, reference
from pykernels.kernels.linear.problem import Problem

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TOLERANCE = {torch.float32: 4e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
NAN = float("nan")


def codes_of(format: str, *shape: int, seed: int) -> torch.Tensor:
    """Any codes but those of NaN and Inf; floats; in memory whose rows are longer by one."""
    rng = np.random.default_rng(seed)
    wide = (*shape[:-1], shape[-1] + 1)
    if format in DTYPES:
        x = torch.from_numpy(rng.standard_normal(wide).astype(np.float32)).to(DTYPES[format])
    elif format == "int8":
        x = torch.from_numpy(rng.integers(-127, 128, wide).astype(np.int8))
    else:
        values = (30 * rng.standard_normal(wide)).astype(getattr(ml_dtypes, f"float8_{format}"))
        x = torch.from_numpy(values.view(np.uint8))
    return x.to(DEVICE)[..., : shape[-1]]


def as_numpy(x: Any) -> Any:
    if not isinstance(x, torch.Tensor):
        return x
    return (x.double() if x.is_floating_point() else x).cpu().numpy()


def case(
    M: int, N: int, K: int, format: str, x_kind: str, block: tuple[int, int] | None = None, bias: bool = False,
    activation: str | None = None, dynamic: bool = False,
) -> tuple[Any, ...]:  # fmt: skip
    """Arguments of `linear` but the output."""
    rng = np.random.default_rng(M + N)
    x, codes = codes_of(x_kind, M, K, seed=M), codes_of(format, N, K, seed=N)
    R, C = block or (1, 1)
    scale = None if block is None else rng.uniform(0.01, 0.03, (-(-N // R), -(-K // C))).astype(np.float32)
    factors = (rng.uniform(0.01, 0.03, M) if dynamic else None), rng.standard_normal(N) if bias else None
    x_scale, offset = (None if f is None else torch.from_numpy(np.float32(f)).to(DEVICE) for f in factors)
    scale = None if scale is None else torch.from_numpy(scale).to(DEVICE)
    problem = Problem(format, (R, C), activation, x_kind if dynamic else None)
    return x, x_scale, codes, scale, offset, problem


def compare(arguments: tuple[Any, ...], dtype: Any, tolerance: float | None = None) -> torch.Tensor:
    """The output of `linear`, in memory of NaN with longer rows; equal to the reference's, and nothing beyond it."""
    *given, problem = arguments
    M, N = len(given[0]), len(given[2])
    memory = torch.full((M, N + 3), NAN, dtype=dtype, device=DEVICE)
    gpu.linear(*given, memory[:, :N], problem)
    expected = np.full((M, N), NAN)
    reference.linear(*map(as_numpy, given), expected, problem)
    assert memory[:, N:].isnan().all()
    largest = np.abs(expected[np.isfinite(expected)]).max(initial=0)
    tolerance = tolerance or TOLERANCE[dtype]
    np.testing.assert_allclose(as_numpy(memory[:, :N]), expected, rtol=tolerance, atol=tolerance / 4 * float(largest))
    return memory[:, :N]


FORMATS = ("int8", "e4m3fn", "e5m2", "e4m3fnuz", "e5m2fnuz")


@pytest.mark.parametrize("M", [1, 5, 19, 70], ids="M={}".format)
@pytest.mark.parametrize("block", [None, (7, 900), (4, 64), (100, 576)], ids=str)
def test_tiles(M, block):
    """Rows in slices and whole, K split and not, one scale and many; formats, types, biases and activations in turn."""
    turn = M + (0 if block is None else sum(block))
    dtype = ("bfloat16", "float16")[turn % 2]
    activation = (None, "relu", "silu", "gelu", "gelu_tanh")[turn % 5]
    compare(case(M, 90, 900, FORMATS[turn % 5], dtype, block, turn % 3 > 0, activation), DTYPES[dtype])


@pytest.mark.parametrize("format", [*FORMATS, "float16"])
@pytest.mark.parametrize("M", [3, 40])
def test_every_code(format, M):
    """All 256 codes, NaN and Inf among them, by rows of the identity; 0 * Inf is NaN."""
    code = torch.arange(256, dtype=torch.int32).to(torch.uint8).reshape(2, 128).to(DEVICE)
    codes = code.view(torch.int8) if format == "int8" else code.half() / 7 if format == "float16" else code
    x = torch.eye(128, dtype=torch.float16, device=DEVICE)[-M:]
    compare((x, None, codes, None, None, Problem(format)), torch.float32)


@pytest.mark.parametrize(
    ("format", "x_kind"),
    [("int8", "int8"), ("e4m3fn", "e4m3fn"), ("e4m3fn", "e5m2fnuz"), ("int8", "e5m2"), ("e5m2", "int8")],
)
def test_dynamic(format, x_kind):
    """Codes with codes; scales of whole rows, of parts, and of parts that no tile has."""
    for M, K, block, dtype in (
        (2, 520, (1, 520), torch.float32),
        (2, 520, (3, 128), torch.bfloat16),
        (40, 260, (2, 128), torch.float32),
        (40, 260, (1, 260), torch.float16),
        (3, 260, (50, 20), torch.float32),
    ):
        compare(case(M, 50, K, format, x_kind, block, True, "silu", dynamic=True), dtype)


def test_integers_are_summed_exactly(monkeypatch):
    """Sums beyond 2^24, and beyond 2^31, for which alone K is split."""
    monkeypatch.setattr(gpu_tile, "FEW_PROGRAMS", 1)
    for M, K, block in ((2, 4096, (1, 4096)), (70, 4096, (1, 2048)), (1, 1088 << 7, (1, 1 << 18))):
        x, codes = (torch.full((rows, K), 127, dtype=torch.int8, device=DEVICE) for rows in (M, 3))
        codes[1], codes[2, ::2] = -127, 126
        x[:, -1] = 1
        scale, ones = torch.ones(3, -(-K // block[1]), device=DEVICE), torch.ones(M, device=DEVICE)
        out = torch.full((M, 3), NAN, device=DEVICE)
        gpu.linear(x, ones, codes, scale, None, out, Problem("int8", block, None, "int8"))
        sums = x.long() @ codes.long().T if block[1] >= K else None
        if sums is None:
            parts = [x[:, a : a + block[1]].long() @ codes[:, a : a + block[1]].long().T for a in (0, block[1])]
            sums = parts[0].float() + parts[1].float()
        assert torch.equal(out, sums.float())


@pytest.mark.parametrize("format", ["int8", "e5m2fnuz", "float32", "bfloat16"])
def test_float32(format):
    """Multiply-adds of one row and of pairs, and many rows by torch's product."""
    for M in (1, 3, 12):
        block = None if format in DTYPES else ((2, 50), (1, 600), (90, 96))[M // 3 % 3]
        compare(case(M, 40, 600, format, "float32", block, M > 1, "gelu" if M % 2 else None), torch.float32)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_scales_of_any_block(dtype):
    """Of columns, and of blocks that no tile has, for few rows and for many."""
    for M, block in ((2, (1, 7)), (2, (1000, 1)), (12, (40, 1)), (12, (5, 30))):
        compare(case(M, 40, 200, "e4m3fn", dtype, block, True, "relu"), DTYPES[dtype])


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_large(dtype, monkeypatch):
    """w made wide in parts, the last one shorter; as it is; and with the output in float32."""
    monkeypatch.setattr(gpu, "LARGE", 8)
    monkeypatch.setattr(gpu_large, "WORKSPACE", 16 * 100 * 2)
    for block, bias, activation in (((1, 100), False, None), ((8, 30), True, "gelu_tanh"), (None, True, None)):
        for kind in (DTYPES[dtype], torch.float32):
            compare(case(33, 40, 100, "int8", dtype, block, bias, activation), kind, TOLERANCE[DTYPES[dtype]])
    compare(case(33, 40, 100, dtype, dtype, None, True, "silu"), DTYPES[dtype])


def test_fp8_of_torch(monkeypatch):
    """torch's product of codes, which emulates it on a CPU: scales of rows in bfloat16, afterwards in float32."""
    monkeypatch.setattr(gpu, "LARGE_FP8", 8)
    monkeypatch.setattr(gpu_large, "torch_multiplies_fp8", lambda x: True)
    calls = []
    multiply = torch._scaled_mm
    monkeypatch.setattr(torch, "_scaled_mm", lambda *args, **options: calls.append(1) or multiply(*args, **options))
    for formats, block, dtype in (
        (("e4m3fn", "e4m3fn"), (1, 64), torch.bfloat16),
        (("e5m2", "e4m3fn"), (16, 64), torch.float32),
    ):
        x, x_scale, codes, *rest, problem = case(16, 48, 64, *formats, block, True, "relu", dynamic=True)
        compare((x.contiguous(), x_scale, codes.contiguous(), *rest, problem), dtype)
    assert len(calls) == 2
    compare(case(16, 48, 64, "e4m3fn", "e4m3fn", (1, 64), dynamic=True), torch.bfloat16)  # rows of odd lengths
    assert len(calls) == 2


def test_scales_keep_their_range(monkeypatch):
    """Scales far below and above what float16 holds, where sums are multiplied and where w is."""
    for large in (512, 4):
        monkeypatch.setattr(gpu, "LARGE", large)
        for factor in (1e-7, 1e6):
            x, _, codes, scale, _, problem = case(8, 40, 128, "e4m3fn", "float16", (2, 64))
            compare((x, None, codes, scale * factor, None, problem), torch.float32, TOLERANCE[torch.float16])


def test_not_finite():
    """NaN and Inf of x and bias reach their rows and columns alone; of w, through products with 0 too."""
    for M, K in ((3, 200), (40, 200), (2, 190)):
        x, _, codes, scale, bias, problem = case(M, 50, K, "e5m2", "bfloat16", (1, K), True)
        x[0, 3], x[1, 7], bias[9], codes = NAN, float("inf"), NAN, codes.clone()
        codes[5, 0], codes[6, K - 1] = 0x7F, 0x7C  # NaN, Inf
        x[1, K - 1] = 0
        compare((x, None, codes, scale, bias, problem), torch.bfloat16)


def test_empty():
    for M, N, K in ((0, 5, 40), (5, 0, 40), (5, 7, 0)):
        for format, kind, dynamic in (
            ("int8", "bfloat16", False),
            ("int8", "int8", True),
            ("float32", "float32", False),
        ):
            block = None if format == "float32" else (1, max(1, K))
            compare(case(M, N, K, format, kind, block, True, "relu", dynamic), torch.float32)


def test_a_row_has_the_bits_that_it_has_in_a_batch(monkeypatch):
    """Of up to half of `FEW_ROWS` rows."""
    for splits in (1, 128):
        monkeypatch.setattr(gpu_tile, "FEW_PROGRAMS", splits)
        x, _, codes, scale, bias, problem = case(16, 70, 2100, "int8", "bfloat16", (1, 4096), True)
        outs = []
        for some in (x, x[3:5], x[3:4], x[2:9]):
            outs.append(torch.empty(len(some), 70, dtype=torch.float32, device=DEVICE))
            gpu.linear(some, None, codes, scale, bias, outs[-1], problem)
        assert torch.equal(outs[0][3:5], outs[1]) and torch.equal(outs[0][3:4], outs[2])
        assert torch.equal(outs[0][2:9], outs[3])


def test_splits_of_multiply_adds(monkeypatch):
    for programs in (1, 1000):
        monkeypatch.setattr(gpu_rows, "FEW_PROGRAMS", programs)
        compare(case(3, 20, 3000, "int8", "float32", (1, 500), True, "silu"), torch.float32)
