"""A cache in plain Python: what `KVCache` must do, token by token; and all that can be seen of one."""

from __future__ import annotations

from unittest import mock

import numpy as np
from conftest import HAS_TORCH

from pykernels.attention import KVCache, _cache, _pools
from pykernels.kernels.attention import reference
from pykernels.kernels.attention.problem import Pages

if HAS_TORCH:
    import torch

KINDS = ["numpy", "torch", "gpu"] if HAS_TORCH else ["numpy"]
"""NumPy arrays; tensors in main memory; such tensors, treated as if they were on a GPU."""


class OnGPU(_pools.Place):
    def __init__(self, device):
        super().__init__(device)
        self.backend = "gpu"

    def store(self, k, v, pages, where):
        k, v, where, *pages = (None if x is None else self.kind.strided(x, "cpu") for x in (k, v, where, *pages))
        reference.store(k, v, Pages(*pages), where)


def build(kind, layout, *sizes, **options):
    """``KVCache.paged`` or ``KVCache.contiguous`` for arrays of a kind."""
    with mock.patch.object(_cache, "Place", OnGPU if kind == "gpu" else _pools.Place):
        return getattr(KVCache, layout)(*sizes, device=None if kind == "numpy" else "cpu", **options)


def of_kind(kind, x):
    return x if kind == "numpy" else torch.from_numpy(np.ascontiguousarray(x))


def tokens(kind, names, heads, width):
    """Float32 (n, Hkv, T, D) in which every number tells its token, head and column."""
    names = np.asarray(names, np.float32)
    x = 1000 * names[:, None, :, None] + 10 * np.arange(heads)[:, None, None] + np.arange(width)
    return of_kind(kind, x.astype(np.float32))


class Model:
    """Pages are lists of the names of their tokens, shared by the sequences that hold the same list."""

    def __init__(self, pages, page_size, longest, slots):
        self.total, self.page_size, self.longest, self.slots = pages, page_size, longest, slots
        self.next = 0
        self.pages = {}
        self.lengths = {}

    @property
    def free_pages(self):
        return self.total - len({id(page) for pages in self.pages.values() for page in pages})

    def names(self, sequence):
        return [name for page in self.pages[sequence] for name in page][: self.lengths[sequence]]

    def add(self, like=None):
        if self.slots is not None and len(self.pages) == self.slots:
            return None
        sequence, self.next = self.next, self.next + 1
        self.pages[sequence] = [] if like is None else list(self.pages[like])
        self.lengths[sequence] = 0 if like is None else self.lengths[like]
        return sequence

    def truncate(self, sequence, length):
        self.lengths[sequence] = length
        del self.pages[sequence][-(-length // self.page_size) :]

    def free(self, sequence):
        del self.pages[sequence], self.lengths[sequence]

    def append(self, names):
        """Append the names of each sequence, and say whether there was room; if not nothing has changed."""
        before = {sequence: list(pages) for sequence, pages in self.pages.items()}, dict(self.lengths)
        written = []
        for sequence, new in names.items():
            for name in new:
                at = self.lengths[sequence] % self.page_size
                pages = self.pages[sequence]
                if at == 0:
                    pages.append([])
                elif any(pages[-1] is page for other in self.pages if other != sequence for page in self.pages[other]):
                    pages[-1] = list(pages[-1])
                written.append((pages[-1], list(pages[-1])))
                pages[-1][at:] = [name]
                self.lengths[sequence] += 1
        if self.free_pages >= 0 and all(len(pages) <= self.longest for pages in self.pages.values()):
            return True
        for page, content in reversed(written):
            page[:] = content
        self.pages, self.lengths = before
        return False


def same_as_model(cache, model, kind):
    assert cache.sequences == sorted(model.pages) and cache.free_pages == model.free_pages
    assert cache.lengths(cache.sequences).tolist() == [model.lengths[s] for s in cache.sequences]
    for sequence in cache.sequences:
        names = model.names(sequence)
        for got, width in zip(cache.gather(sequence), (cache.head_dim, cache.value_dim), strict=True):
            assert isinstance(got, np.ndarray if kind == "numpy" else torch.Tensor)
            expected = tokens("numpy", [names], cache.kv_heads, width)[0]
            np.testing.assert_array_equal(np.asarray(got), expected)
    if kind == "gpu":
        launchers_see_the_same(cache, model)


def launchers_see_the_same(cache, model):
    """Through the table that is kept on the device, of sequences asked for now and then."""
    sequences = np.array([s for s in cache.sequences if (s + model.next) % 3], np.int64)
    with cache._lock:
        pages = cache._read(sequences, 0, "gpu")
        for n, sequence in enumerate(sequences.tolist()):
            token = np.arange(int(pages.lengths[n]))
            kept = pages.k[pages.table[n, token // cache.page_size], :, token % cache.page_size]
            expected = tokens("numpy", [model.names(sequence)], cache.kv_heads, cache.head_dim)[0]
            np.testing.assert_array_equal(kept.numpy(), expected.swapaxes(0, 1))


def state(cache):
    """All of a cache, to compare before and after."""
    contents = [np.asarray(x).copy() for s in cache.sequences for x in cache.gather(s)]
    return cache.sequences, cache.lengths(cache.sequences).tolist(), cache.free_pages, contents


def same(a, b):
    assert a[:3] == b[:3]
    for x, y in zip(a[3], b[3], strict=True):
        np.testing.assert_array_equal(x, y)
