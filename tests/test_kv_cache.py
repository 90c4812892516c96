"""`KVCache` against plain Python; sharing, layouts, devices and threads."""

from __future__ import annotations

from functools import partial

import ml_dtypes
import numpy as np
import pytest
from conftest import HAS_TORCH, run_threads
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from kv_cache_model import (
    KINDS,
    Model,
    build,
    launchers_see_the_same,
    of_kind,
    same_as_model,
    tokens,
)

from pykernels.attention import KVCache

if HAS_TORCH:
    import torch


class Machine(RuleBasedStateMachine):
    """A cache beside a model of it."""

    @initialize(kind=st.sampled_from(KINDS), paged=st.booleans())
    def create(self, kind, paged):
        self.kind, self.name = kind, 0
        sizes = (9, 3) if paged else (4, 7)
        self.cache = build(kind, "paged" if paged else "contiguous", *sizes, 2, 3, value_dim=2)
        self.model = Model(*sizes, longest=9 if paged else 1, slots=None if paged else 4)

    def some(self, data):
        return data.draw(st.sampled_from(self.cache.sequences))

    @rule()
    def new(self):
        self.made(self.cache.new, self.model.add())

    @precondition(lambda self: self.cache.sequences)
    @rule(data=st.data())
    def fork(self, data):
        like = self.some(data)
        self.made(lambda: self.cache.fork(like), self.model.add(like))

    def made(self, make, expected):
        if expected is None:
            with pytest.raises(MemoryError, match="4 sequences, as many as it can hold"):
                make()
        else:
            assert make() == expected

    @precondition(lambda self: self.cache.sequences)
    @rule(data=st.data(), count=st.integers(0, 7))
    def append(self, data, count):
        sequences = data.draw(st.lists(st.sampled_from(self.cache.sequences), unique=True, max_size=4))
        names = self.name + np.arange(len(sequences) * count).reshape(len(sequences), count)
        self.name += names.size
        k, v = (tokens(self.kind, names, 2, width) for width in (3, 2))
        if self.model.append(dict(zip(sequences, names.tolist(), strict=True))):
            self.cache.append(sequences, k, v)
        else:
            with pytest.raises(MemoryError):
                self.cache.append(sequences, k, v)

    @precondition(lambda self: self.cache.sequences)
    @rule(data=st.data())
    def truncate(self, data):
        sequence = self.some(data)
        length = data.draw(st.integers(0, self.model.lengths[sequence]))
        self.cache.truncate(sequence, length)
        self.model.truncate(sequence, length)

    @precondition(lambda self: self.cache.sequences)
    @rule(data=st.data())
    def free(self, data):
        sequence = self.some(data)
        self.cache.free(sequence)
        self.model.free(sequence)
        with pytest.raises(ValueError, match="never made, or freed"):
            self.cache.length(sequence)

    @invariant()
    def agrees(self):
        if hasattr(self, "cache"):
            same_as_model(self.cache, self.model, self.kind)


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def test_forks_share_pages_until_one_is_written():
    cache = KVCache.paged(10, 4, 1, 1)
    first = cache.new()
    cache.append([first], *[tokens("numpy", [range(6)], 1, 1)] * 2)
    forks = [cache.fork(first) for _ in range(3)]
    assert cache.free_pages == 8
    cache.append([first, *forks], *[tokens("numpy", [[10], [11], [12], [13]], 1, 1)] * 2)
    assert cache.free_pages == 5  # one of the four keeps the page
    for i, sequence in enumerate([first, *forks]):
        assert (cache.gather(sequence)[0][0, :, 0] / 1000).tolist() == [0, 1, 2, 3, 4, 5, 10 + i]
        cache.free(sequence)
    assert cache.free_pages == 10


@pytest.mark.skipif(not HAS_TORCH, reason="torch is not installed")
@pytest.mark.parametrize(("layout", "sizes"), [("contiguous", (5, 7)), ("paged", (20, 2))])
def test_a_table_on_a_device_follows(layout, sizes):
    cache = build("gpu", layout, *sizes, 2, 3)
    model = Model(*sizes, longest=sizes[0], slots=None)
    for step in range(15):
        if step < 5:
            model.add()
            cache.new()
        sequence = (step * 2 + 1) % len(cache.sequences)
        model.append({sequence: [step]})
        cache.append([sequence], *[tokens("gpu", [[step]], 2, 3)] * 2)
        launchers_see_the_same(cache, model)


def test_copies_have_all_that_was_written():
    cache = KVCache.paged(10, 4, 1, 1)
    sequences = [cache.new() for _ in range(3)]
    for sequence, length in zip(sequences, (1, 3, 6), strict=True):
        cache.append([sequence], *[tokens("numpy", [range(length)], 1, 1)] * 2)
    forks = [cache.fork(sequence) for sequence in sequences]
    cache.append(forks, *[tokens("numpy", [[9]] * 3, 1, 1)] * 2)
    for sequence, fork in zip(sequences, forks, strict=True):
        whole, copy = (cache.gather(s)[0][0, :, 0].tolist() for s in (sequence, fork))
        assert copy == [*whole, 9000]


def test_a_full_page_is_never_copied():
    cache = KVCache.paged(3, 4, 1, 1)
    first = cache.new()
    cache.append([first], *[tokens("numpy", [range(4)], 1, 1)] * 2)
    cache.append([first, cache.fork(first)], *[tokens("numpy", [[7], [8]], 1, 1)] * 2)
    assert cache.free_pages == 0


def test_a_contiguous_cache_always_has_room_for_copies():
    cache = KVCache.contiguous(3, 4, 1, 1)
    first = cache.new()
    cache.append([first], *[tokens("numpy", [range(2)], 1, 1)] * 2)
    all_three = [first, cache.fork(first), cache.fork(first)]
    cache.append(all_three, *[tokens("numpy", [[3], [4], [5]], 1, 1)] * 2)
    assert [int(cache.gather(s)[1][0, 2, 0]) for s in all_three] == [3000, 4000, 5000]


@pytest.mark.parametrize("kind", KINDS)
def test_input_of_any_layout(kind):
    cache = build(kind, "paged", 30, 4, 3, 5)
    x = np.random.default_rng(0).standard_normal((2, 7, 3, 5)).astype(np.float32)
    expected = x.transpose(0, 2, 1, 3)
    a, b = cache.new(), cache.new()
    view = of_kind(kind, x)
    cache.append(np.array([a, b]), view.swapaxes(1, 2), view.swapaxes(1, 2))
    if kind == "numpy":
        cache.append([a, b], expected[..., ::-1][..., ::-1].astype(">f4"), expected)
    else:
        cache.append(torch.tensor([a, b]), view.swapaxes(1, 2).requires_grad_(), view.swapaxes(1, 2))
    for n, sequence in enumerate((a, b)):
        for got in cache.gather(sequence):
            np.testing.assert_array_equal(np.asarray(got), np.concatenate([expected[n]] * 2, axis=1))
            got[...] = 0  # a copy
    np.testing.assert_array_equal(np.asarray(cache.gather(a)[0])[:, :7], expected[0])


def test_dtypes_devices_and_attributes():
    for dtype, name in (
        ("bfloat16", "bfloat16"),
        (np.float16, "float16"),
        (np.dtype("int8"), "int8"),
        (ml_dtypes.float8_e4m3fn, "float8_e4m3fn"),
        ("e4m3fn", "float8_e4m3fn"),
    ):
        cache = KVCache.contiguous(3, 5, 2, 4, value_dim=6, dtype=dtype)
        assert cache.dtype == name and cache.device is None and (cache.num_pages, cache.page_size) == (3, 5)
        numbers, itemsize = 3 * 5 * 2, 2 if name.endswith("float16") else 1
        assert cache.nbytes == numbers * ((4 + 6) * itemsize + (8 if itemsize == 1 else 0))
    assert repr(cache) == "KVCache of 3 pages of 5 tokens, 3 free, 2 heads of 4 and 6, float8_e4m3fn, device None"
    assert 0 not in cache and cache.new() in cache and np.int64(0) in cache and "0" not in cache
    if HAS_TORCH:
        cache = KVCache.paged(3, 5, 2, 4, dtype=torch.bfloat16)
        assert cache.device == torch.device("cpu") and cache.gather(cache.new())[0].dtype is torch.bfloat16
        cache = KVCache.paged(3, 5, 2, 4, dtype=torch.int8)
        assert cache.device == torch.device("cpu") and cache.gather(cache.new())[0].dtype is torch.float32
        assert KVCache.paged(3, 5, 2, 4, device=torch.device("cpu")).device == torch.device("cpu")


def test_threads_see_whole_changes_of_their_own_sequences():
    cache = KVCache.paged(64, 4, 1, 2)

    def work(name):
        for round in range(40):
            sequence, names = cache.new(), [name * 100 + i for i in range(round % 9 + 1)]
            cache.append([sequence], *[tokens("numpy", [names], 1, 2)] * 2)
            fork = cache.fork(sequence)
            cache.append([fork], *[tokens("numpy", [[name]], 1, 2)] * 2)
            cache.truncate(sequence, 1)
            for one, expected in ((sequence, names[:1]), (fork, [*names, name])):
                np.testing.assert_array_equal(cache.gather(one)[1], tokens("numpy", [expected], 1, 2)[0])
                cache.free(one)

    run_threads(*[partial(work, name) for name in range(4)])
    assert cache.free_pages == 64 and cache.sequences == []
