"""Shared by all tests: which backends run here, and bytes of float8 arrays."""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

HAS_TORCH = importlib.util.find_spec("torch") is not None
HAS_TRITON = HAS_TORCH and importlib.util.find_spec("triton") is not None
if HAS_TRITON:
    import torch

    if not torch.cuda.is_available():
        os.environ.setdefault("TRITON_INTERPRET", "1")  # before any kernel is decorated

BACKENDS = [
    "cpu",
    pytest.param("gpu", marks=pytest.mark.skipif(not HAS_TRITON, reason="torch and triton are not installed")),
]


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def as_bytes(codes: object) -> np.ndarray:
    """The bytes of a float8 array, of NumPy or torch, in its shape."""
    if not isinstance(codes, np.ndarray):
        codes = codes.contiguous().view(torch.uint8).cpu().numpy()
    return np.ascontiguousarray(codes).view(np.uint8).reshape(codes.shape)


def same_bits(a: np.ndarray, b: np.ndarray) -> None:
    """Assert that arrays agree in dtype, shape and every bit; a NaN then equals itself."""
    assert a.dtype == b.dtype and a.shape == b.shape
    np.testing.assert_array_equal(a.view(f"u{a.itemsize}"), b.view(f"u{b.itemsize}"))


def refused(error: type[Exception], text: str, call: Callable[[], object]) -> None:
    """Assert that a call raises this error, none that derives from it, with this text in it."""
    with pytest.raises(error, match=re.escape(text)) as raised:
        call()
    assert raised.type is error


def run_threads(*works: Callable[[], object]) -> None:
    """Call all at once, a thread each, which take turns as often as Python lets them; raises what one of them did."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(len(works)) as pool:
            futures = [pool.submit(work) for work in works]
    finally:
        sys.setswitchinterval(interval)
    for future in futures:
        future.result()


@pytest.fixture
def cheap_bins(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Costs under which every plan that meets its target is cheaper than the exact top-k."""
    from pykernels.topk import _plan

    free = _plan.Cost(element=(0,) * 4, crowded=(0,) * 4, resident=0, rescan=1, sort=9, merge=1)
    monkeypatch.setitem(_plan._COSTS, "cpu", free)
    _plan._plan.cache_clear()
    yield
    _plan._plan.cache_clear()
