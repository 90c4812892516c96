"""A `KVCache` of several layers against plain Python: growing and writing, sharing, failures, threads, decode."""

from __future__ import annotations

import re
from functools import partial

import ml_dtypes
import numpy as np
import pytest
from conftest import run_threads, same_bits
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from kv_cache_model import KINDS, Model, build, of_kind, tokens

from pykernels._dispatch import launcher
from pykernels.attention import KVCache, attention, decode
from pykernels.attention._pools import Pools
from pykernels.kernels.attention.problem import Pages

LAYERS, HEADS, WIDTHS = 3, 2, (3, 2)


def of_layer(names, layer, width):
    """Tokens that tell their layer as well."""
    return tokens("numpy", names, HEADS, width) + np.float32(0.25 * layer)


def write(cache, kind, grown, names, order):
    for layer in order:
        cache.write(grown, layer, *(of_kind(kind, of_layer(names, layer, width)) for width in WIDTHS))


class Machine(RuleBasedStateMachine):
    """A cache beside a model of its pages and the names of its tokens."""

    @initialize(kind=st.sampled_from(KINDS), paged=st.booleans())
    def create(self, kind, paged):
        self.kind, self.name = kind, 0
        sizes = (9, 3) if paged else (4, 7)
        layout = "paged" if paged else "contiguous"
        self.cache = build(kind, layout, *sizes, HEADS, WIDTHS[0], value_dim=WIDTHS[1], layers=LAYERS)
        self.model = Model(*sizes, longest=9 if paged else 1, slots=None if paged else 4)

    @rule(data=st.data())
    def new(self, data):
        like = data.draw(st.sampled_from([None, *self.cache.sequences]))
        make = self.cache.new if like is None else lambda: self.cache.fork(like)
        expected = self.model.add(like)
        if expected is None:
            with pytest.raises(MemoryError):
                make()
        else:
            assert make() == expected

    @precondition(lambda self: self.cache.sequences)
    @rule(data=st.data(), count=st.integers(0, 7), order=st.permutations(range(LAYERS)))
    def grow(self, data, count, order):
        sequences = data.draw(st.lists(st.sampled_from(self.cache.sequences), unique=True, max_size=4))
        names = self.name + np.arange(len(sequences) * count).reshape(len(sequences), count)
        self.name += names.size
        before = self.cache.lengths(sequences)
        if not self.model.append(dict(zip(sequences, names.tolist(), strict=True))):
            with pytest.raises(MemoryError):
                self.cache.grow(sequences, count)
            return
        grown = self.cache.grow(sequences, count)
        np.testing.assert_array_equal(grown.positions, before[:, None] + np.arange(count))
        write(self.cache, self.kind, grown, names, order)

    @precondition(lambda self: self.cache.sequences)
    @rule(data=st.data())
    def shorten(self, data):
        sequence = data.draw(st.sampled_from(self.cache.sequences))
        length = data.draw(st.integers(-1, self.model.lengths[sequence]))
        if length < 0:
            self.cache.free(sequence)
            self.model.free(sequence)
        else:
            self.cache.truncate(sequence, length)
            self.model.truncate(sequence, length)

    @invariant()
    def agrees(self):
        if not hasattr(self, "cache"):
            return
        assert self.cache.sequences == sorted(self.model.pages) and self.cache.free_pages == self.model.free_pages
        for sequence in self.cache.sequences:
            for layer in range(LAYERS):
                for got, width in zip(self.cache.gather(sequence, layer), WIDTHS, strict=True):
                    expected = of_layer([self.model.names(sequence)], layer, width)[0]
                    np.testing.assert_array_equal(np.asarray(got), expected)


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)


def small():
    """A cache of two sequences of 5 tokens and a fork of the first, and what it holds."""
    cache = KVCache.paged(6, 4, HEADS, WIDTHS[0], value_dim=WIDTHS[1], layers=LAYERS)
    sequences = [cache.new(), cache.new()]
    write(cache, "numpy", cache.grow(sequences, 5), np.arange(10).reshape(2, 5), range(LAYERS))
    return cache, [*sequences, cache.fork(0)]


def contents(cache):
    arrays = [x for s in cache.sequences for layer in range(LAYERS) for x in cache.gather(s, layer)]
    return cache.sequences, cache.lengths(cache.sequences).tolist(), cache.free_pages, [x.tolist() for x in arrays]


K, V = np.zeros((1, HEADS, 2, WIDTHS[0]), np.float32), np.zeros((1, HEADS, 2, WIDTHS[1]), np.float32)
BAD = {
    "append": (ValueError, "append to a cache of 3 layers: expected grow", lambda c, g: c.append([0], K, V)),
    "full": (MemoryError, "need 3 pages of 4 tokens: 2 are free", lambda c, g: c.grow([1], 12)),
    "repeated": (ValueError, "sequences=[1, 1]: expected distinct", lambda c, g: c.grow([1, 1], 1)),
    "unknown": (ValueError, "sequence 7 is not in the cache", lambda c, g: c.grow([1, 7], 1)),
    "tokens": (ValueError, "tokens=-1", lambda c, g: c.grow([1], -1)),
    "float": (TypeError, "tokens=1.0", lambda c, g: c.grow([1], 1.0)),
    "grown": (TypeError, "grown is a list", lambda c, g: c.write([1], 0, K, V)),
    "other": (ValueError, "grown is of another cache", lambda c, g: small()[0].write(g, 0, K, V)),
    "layer": (ValueError, "layer=3: expected an integer from 0 to 2", lambda c, g: c.write(g, 3, K, V)),
    "count": (
        ValueError,
        "v has shape (1, 2, 1, 2): expected (1, 2, 2, 2)",
        lambda c, g: c.write(g, 0, K, V[:, :, :1]),
    ),
    "dtype": (TypeError, "k has dtype float64", lambda c, g: c.write(g, 0, np.float64(K), V)),
    "gather": (ValueError, "layer=-1", lambda c, g: c.gather(0, -1)),
    "decode": (ValueError, "layer=3", lambda c, g: decode(K, c, [0], layer=3)),
    "layers": (ValueError, "layers=0", lambda c, g: KVCache.paged(1, 1, 1, 1, layers=0)),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named_and_changes_nothing(case):
    error, message, call = BAD[case]
    cache, _ = small()
    grown = cache.grow([1], 2)
    before = contents(cache)
    with pytest.raises(error, match=re.escape(message)):
        call(cache, grown)
    assert contents(cache) == before


def test_growth_that_fails_changes_nothing(monkeypatch):
    cache, (_, _, fork) = small()
    before = contents(cache)

    def fail(*arguments):
        raise MemoryError("none left")

    with monkeypatch.context() as patch:
        patch.setattr(Pools, "copy", fail)
        with pytest.raises(MemoryError, match="none left"):
            cache.grow([fork], 1)
    assert contents(cache) == before


def test_tokens_are_written_where_they_are_by_then():
    cache, (first, second, _) = small()
    grown = cache.grow([second], 1)
    write(cache, "numpy", grown, [[50]], [0])
    write(cache, "numpy", cache.grow([first], 1), [[60]], range(LAYERS))  # copies the page it shared
    other = cache.fork(second)
    write(cache, "numpy", cache.grow([second], 1), [[70]], range(LAYERS))  # moves what `grown` is of
    write(cache, "numpy", grown, [[50]], [1, 2])
    for layer in range(LAYERS):
        expected = of_layer([[5, 6, 7, 8, 9, 50, 70]], layer, WIDTHS[0])[0]
        np.testing.assert_array_equal(cache.gather(second, layer)[0], expected)
    np.testing.assert_array_equal(cache.gather(other, 0)[0], of_layer([[5, 6, 7, 8, 9, 50]], 0, WIDTHS[0])[0])
    cache.truncate(second, 5)
    with pytest.raises(ValueError, match="grown is of sequence 1 with 6 tokens, which has 5 now: it was truncated"):
        cache.write(grown, 0, K[:, :, :1], V[:, :, :1])
    cache.free(second)
    with pytest.raises(ValueError, match="sequence 1 is not in the cache"):
        cache.write(grown, 0, K[:, :, :1], V[:, :, :1])


def test_attributes_count_all_layers():
    one, three = (KVCache.contiguous(2, 5, HEADS, 4, dtype="int8", layers=n) for n in (1, 3))
    assert three.layers == 3 and three.nbytes == 3 * one.nbytes and "of 3 layers, 2 pages" in repr(three)
    assert np.array_equal(one.grow([one.new()], 2).positions, [[0, 1]])


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_decode_attends_to_its_layer(dtype):
    random = np.random.default_rng(0)
    cache = KVCache.paged(20, 4, HEADS, 16, layers=LAYERS, dtype=dtype)
    sequences = [cache.new(), cache.new()]
    for count in (5, 1):
        grown = cache.grow(sequences, count)
        for layer in range(LAYERS):
            cache.write(grown, layer, *random.standard_normal((2, 2, HEADS, count, 16), np.float32))
    q = random.standard_normal((2, 4, 1, 16), np.float32)
    for layer in range(LAYERS):
        k, v = (np.stack([cache.gather(s, layer)[i] for s in sequences]) for i in (0, 1))
        expected = attention(q, k, v, causal="lower_right", backend="reference")
        got = decode(q, cache, sequences, layer=layer, backend="reference")
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("stored", ["int8", "uint8", None])
@pytest.mark.parametrize("source", ["float32", "bfloat16", "float16"])
def test_the_kernel_stores_what_its_definition_says(source, stored):
    random, source = np.random.default_rng(3), np.dtype(getattr(ml_dtypes, source, source))
    finite = float(ml_dtypes.finfo(source).maxexp) - 3
    for n, heads, t, d, dv in ((1, 2, 1, 64, 64), (3, 2, 40, 33, 7)):
        given = []
        for width in (d, dv):
            x = random.standard_normal((n, t, heads, width)) * np.exp2(random.uniform(-30, finite, (n, t, heads, 1)))
            x[0, 0, 0, -1], x[-1, -1, -1, 0] = (0, 0) if n == 1 else (np.nan, -np.inf)
            given.append(x.astype(source).transpose(0, 2, 1, 3))
        rows = random.permutation(5 * 30)[: n * t].reshape(n, t)
        where, kept = np.stack([rows // 30, rows % 30]), []
        for backend in ("cpu", "reference"):
            pages = [np.full((5, heads, 30, width), 7, stored or source) for width in (d, dv)]
            scales = [np.full((5, heads, 30), 7, np.float32) if stored else None for _ in pages]
            launcher("attention", backend, "store")(*given, Pages(*pages, *scales), where)
            kept.append([*pages, *(scales if stored else [])])
        for ours, expected in zip(*kept, strict=True):
            same_bits(ours, expected)


def test_threads_write_their_own_sequences():
    cache = KVCache.paged(64, 4, HEADS, WIDTHS[0], value_dim=WIDTHS[1], layers=LAYERS)

    def work(name):
        for round in range(25):
            sequence, names = cache.new(), [name * 100 + i for i in range(round % 9 + 1)]
            write(cache, "numpy", cache.grow([sequence], len(names)), [names], range(LAYERS))
            fork = cache.fork(sequence)
            write(cache, "numpy", cache.grow([fork], 1), [[name]], range(LAYERS))
            for one, expected in ((sequence, names), (fork, [*names, name])):
                for layer in range(LAYERS):
                    got = cache.gather(one, layer)[0]
                    np.testing.assert_array_equal(got, of_layer([expected], layer, WIDTHS[0])[0])
                cache.free(one)

    run_threads(*[partial(work, name) for name in range(4)])
    assert cache.free_pages == 64 and cache.sequences == []
