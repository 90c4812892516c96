"""The register tiles of products, with the instructions of this machine and without them."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

import pykernels
from pykernels.kernels import _dot
from pykernels.kernels.search import cpu

DTYPES = [np.float32, np.float16, ml_dtypes.bfloat16, np.int8, ml_dtypes.float8_e4m3fn]


def codes(x):
    return x.view(np.uint8) if x.dtype == ml_dtypes.float8_e4m3fn else x


def scores(q, x):
    """All scores, through a search for every row."""
    found, ids = np.full((len(q), len(x)), np.nan, np.float32), np.full((len(q), len(x)), -7, np.int64)
    cpu.search(codes(q), codes(x), None, None, None, None, 1 << 26, found, ids)
    result = np.empty_like(found)
    np.put_along_axis(result, ids, found, 1)
    return result


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda t: np.dtype(t).name)
@pytest.mark.parametrize("dim", [1, 3, 16, 17, 66, 128])
def test_products_of_every_tile(dtype, dim):
    """Queries below and above a block, rows below and above a tile; sums of small integers are exact."""
    random = np.random.default_rng(dim)
    x = random.integers(-8, 9, (2 * _dot.ROWS + 5, dim)).astype(dtype)
    for queries in (1, 4, 5, _dot.HALF, _dot.HALF + 1, _dot.LANES + 3):
        q = random.integers(-8, 9, (queries, dim)).astype(dtype)
        np.testing.assert_array_equal(scores(q, x), q.astype(np.float64) @ x.astype(np.float64).T)


def test_int8_at_its_extremes():
    """-128 has no negative, and the unsigned side of the instruction sees 0 and 255."""
    values = np.array([-128, -127, -1, 0, 1, 127], np.int8)
    x = np.stack([np.tile(values, 43)[: 6 * 42], np.full(252, -128, np.int8), np.full(252, 127, np.int8)])
    q = np.repeat(x, 2, axis=0)
    np.testing.assert_array_equal(scores(q, x), q.astype(np.int64) @ x.astype(np.int64).T)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn])
def test_every_value_of_a_narrow_type_is_read_exactly(dtype):
    """One product with 1 for each bit pattern; a NaN score is never found."""
    bits = np.arange(1 << 8 * np.dtype(dtype).itemsize).astype(f"u{np.dtype(dtype).itemsize}")
    x = np.zeros((len(bits), 18), dtype)
    x[:, 0] = bits.view(dtype)
    expected = x[:, 0].astype(np.float32)
    subnormal = np.abs(expected) < np.finfo(np.float32).tiny  # of which the sums may be 0
    q = np.zeros((5, 18), dtype)
    q[:, 0] = 1
    for queries in (q, q[:1]):
        found, ids = np.empty((len(queries), len(x)), np.float32), np.empty((len(queries), len(x)), np.int64)
        cpu.search(codes(queries), codes(x), None, None, None, None, 1 << 26, found, ids)
        for score, row in zip(found, ids, strict=True):
            row = row[score > -np.inf]
            score = score[: len(row)]
            normal = ~subnormal[row]
            np.testing.assert_array_equal(score[normal], expected[row][normal])
            assert set(row) == set(np.flatnonzero(expected > -np.inf))
            assert np.all(np.abs(score[~normal]) < np.finfo(np.float32).tiny)


@pytest.mark.parametrize("name", ["generic", "haswell"])
def test_machines_without_these_instructions_agree(name):
    code = """
        import ml_dtypes, numpy as np
        from pykernels.kernels import _dot
        from pykernels.kernels.search import cpu, reference
        assert _dot.LANES == 16 and not _dot.PAIRS and not _dot.QUADS
        random = np.random.default_rng(0)
        for dtype in (np.float32, np.int8):
            q, x = (random.integers(-4, 5, (n, 19)).astype(dtype) for n in (21, 300))
            results = []
            for backend in (cpu, reference):
                scores, ids = np.empty((21, 7), np.float32), np.empty((21, 7), np.int64)
                backend.search(q, x, None, None, None, None, 1 << 20, scores, ids)
                results.append((scores, ids))
            np.testing.assert_array_equal(results[0][0], results[1][0])
            np.testing.assert_array_equal(results[0][1], results[1][1])
        print("same")
    """
    features = {"generic": "", "haswell": "+avx,+avx2,+fma,+f16c,+bmi,+bmi2,+popcnt,+lzcnt,+sse4.2"}[name]
    env = {**os.environ, "NUMBA_CPU_NAME": name, "NUMBA_CPU_FEATURES": features}
    env["PYTHONPATH"] = str(Path(pykernels.__file__).parent.parent)
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
    assert done.stdout.strip() == "same", done.stderr[-2000:]
