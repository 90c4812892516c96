"""Bad input to `KVCache`, and failures of memory: each is named, and changes nothing."""

from __future__ import annotations

import re

import numpy as np
import pytest
from conftest import HAS_TORCH
from kv_cache_model import same, state, tokens

from pykernels.attention import KVCache, _pages, _pools

if HAS_TORCH:
    import torch


def test_failures_of_memory_change_nothing(monkeypatch):
    cache = KVCache.paged(40, 2, 1, 1)
    sequences = [cache.new() for _ in range(7)]
    cache.append(sequences, *[tokens("numpy", [[i] for i in range(7)], 1, 1)] * 2)
    fork = cache.fork(sequences[0])  # in the last of eight slots
    before = state(cache)

    def fail(*arguments):
        raise MemoryError("none left")

    def append(names):
        cache.append([fork], *[tokens("numpy", [names], 1, 1)] * 2)

    for owner, name, call in (
        (_pages.PageTable, "_reshape", lambda: append(range(9))),
        (_pages.PageTable, "_reshape", cache.new),
        (_pages.PageTable, "grow", lambda: append([1])),
        (_pools.Pools, "write", lambda: append([1])),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, fail)
            with pytest.raises(MemoryError, match="none left"):
                call()
        same(state(cache), before)


X = np.ones((2, 2, 1, 3), np.float32)
BAD = {
    "unknown": (ValueError, "sequence 9 is not in the cache", lambda c: c.append([0, 9], X, X)),
    "freed": (ValueError, "sequence 2 is not in the cache: it was never made, or freed", lambda c: c.fork(2)),
    "negative": (ValueError, "sequence -1 is not", lambda c: c.length(-1)),
    "free twice": (ValueError, "sequence 2", lambda c: c.free(2)),
    "gather": (ValueError, "sequence 2", lambda c: c.gather(2)),
    "lengths": (ValueError, "sequence 2", lambda c: c.lengths([0, 2])),
    "no number": (TypeError, "sequence='a'", lambda c: c.free("a")),
    "boolean": (TypeError, "sequence=True", lambda c: c.free(True)),
    "list": (TypeError, "sequence=[0]", lambda c: c.truncate([0], 1)),
    "floats": (TypeError, "sequences has dtype float64", lambda c: c.append([0.0, 1.0], X, X)),
    "scalar": (ValueError, "sequences has shape ()", lambda c: c.append(0, X, X)),
    "count": (ValueError, "sequences has shape (1,): expected (2,), as k has 2", lambda c: c.append([0], X, X)),
    "repeated": (ValueError, "sequences=[1, 1]: expected distinct", lambda c: c.append([1, 1], X, X)),
    "dtype": (TypeError, "k has dtype float64: expected one of float32", lambda c: c.append([0, 1], X.astype("f8"), X)),
    "v dtype": (TypeError, "v has dtype float16", lambda c: c.append([0, 1], X, X.astype("f2"))),
    "heads": (ValueError, "k has shape (2, 1, 1, 3): expected (n, 2, T, 3)", lambda c: c.append([0, 1], X[:, :1], X)),
    "width": (ValueError, "v has shape (2, 2, 1, 2): expected (n, 2, T, 3)", lambda c: c.append([0, 1], X, X[..., :2])),
    "axes": (ValueError, "k has shape (2, 1, 3)", lambda c: c.append([0, 1], X[0], X)),
    "tokens": (ValueError, "expected a value for every key", lambda c: c.append([0, 1], X, X.repeat(2, 2))),
    "truncate": (ValueError, "length=6: expected an integer from 0 to 5", lambda c: c.truncate(0, 6)),
    "truncate negative": (ValueError, "length=-1", lambda c: c.truncate(0, -1)),
    "truncate float": (TypeError, "length=1.0", lambda c: c.truncate(0, 1.0)),
    "full": (
        MemoryError,
        "2 sequences with 8 more tokens each need 4 pages",
        lambda c: c.append([0, 1], *[X.repeat(8, 2)] * 2),
    ),
    "too long": (MemoryError, "cannot get 30 more", lambda c: c.append([0, 1], *[X.repeat(30, 2)] * 2)),
    "pages": (ValueError, "num_pages=0", lambda c: KVCache.paged(0, 1, 1, 1)),
    "page size": (TypeError, "page_size=2.0", lambda c: KVCache.paged(1, 2.0, 1, 1)),
    "sequences": (ValueError, "max_sequences=-1", lambda c: KVCache.contiguous(-1, 1, 1, 1)),
    "length": (ValueError, "max_length=0", lambda c: KVCache.contiguous(1, 0, 1, 1)),
    "kv heads": (ValueError, "kv_heads=0", lambda c: KVCache.paged(1, 1, 0, 1)),
    "head dim": (TypeError, "head_dim=None", lambda c: KVCache.paged(1, 1, 1, None)),
    "value dim": (ValueError, "value_dim=0", lambda c: KVCache.paged(1, 1, 1, 1, value_dim=0)),
    "cache dtype": (
        TypeError,
        "dtype='float64': expected one of",
        lambda c: KVCache.paged(1, 1, 1, 1, dtype="float64"),
    ),
}
if HAS_TORCH:
    T = torch.ones(2, 2, 1, 3)
    BAD["kind"] = (TypeError, "k is a Tensor: expected a ndarray, as the cache", lambda c: c.append([0, 1], T, X))
    BAD["device"] = (ValueError, "device='abacus'", lambda c: KVCache.paged(1, 1, 1, 1, device="abacus"))
    BAD["devices"] = (
        ValueError,
        "k is on device meta: expected cpu, as the cache",
        lambda c: KVCache.paged(1, 1, 2, 3, device="cpu").append([0, 1], T.to("meta"), T),
    )


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named_and_changes_nothing(case):
    error, message, call = BAD[case]
    cache = KVCache.paged(5, 4, 2, 3)
    for names in ([0, 1, 2, 3, 4], [5], [6]):
        cache.append([cache.new()], *[tokens("numpy", [names], 2, 3)] * 2)
    cache.free(2)
    before = state(cache)
    with pytest.raises(error, match=re.escape(message)):
        call(cache)
    same(state(cache), before)
