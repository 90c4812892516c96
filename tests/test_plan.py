"""The plan: chips, slices, costs by hand, frontiers and limits by brute force."""

from __future__ import annotations

import doctest
import importlib
import time
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pykernels.inference.plan import (
    Chip,
    Efficiency,
    Model,
    Slice,
    calibrate,
    draw,
    longest_context,
    pareto,
    plan,
)
from pykernels.inference.plan._costs import Work, _pairs
from pykernels.inference.plan._result import longest as limit

PALM = Model.named("palm-540b")
TPU = Chip.named("tpu-v4")
SMALL = Model("small", layers=4, width=512, hidden=2048, heads=8, kv_heads=2, head_dim=64, vocab=1000)
DOCUMENTED = (
    *("_calibrate", "_chip", "_crossovers", "_draw", "_efficiency", "_longest", "_model", "_pareto", "_plan", "_slice"),
)


def test_one_chip_by_hand():
    """llama-2-7b on an H100: 6,607,077,376 parameters are multiplied, 524,288 bytes of cache a token."""
    (best,) = plan("llama-2-7b", "h100", 1, batch=4, context=1000)
    products = 2 * 6_607_077_376 / 3.35e12
    attention = 4 * 1000 * 524_288 / 3.35e12
    assert best.seconds == best.memory_seconds == pytest.approx(products + attention, rel=1e-12)
    assert best.mfu == pytest.approx(2 * 6_607_077_376 * 4 / (989.4e12 * best.seconds), rel=1e-12)
    assert best.cost == best.seconds / 4 and best.limit == "memory" and best.communication_seconds == 0
    (best,) = plan("llama-2-7b", "h100", 1, batch=1, context=1000, phase="prefill")
    flops = 2 * 6_607_077_376 * 1000 + 32 * 4 * 32 * 128 * 1000 * 1001 / 2
    assert best.seconds == best.compute_seconds == pytest.approx(flops / 989.4e12, rel=1e-12)


def test_communication_of_540b_by_hand():
    """A parallel block in ws2d on 4 x 4 x 4: three quarters over x, fifteen sixteenths over y and z."""
    best = plan(PALM, TPU, Slice.of(TPU, (4, 4, 4)), batch=512, context=2048)[0]
    residual = 2 * 18432 / 4 * 15 / 16
    inner = (48 * 256 + 2 * 256 + 2 * 73728 + 48 * 256 + 73728) / 16 * 3 / 4
    to_batch = (48 * 256 + 2 * 256 + 48 * 256) / 64 * 63 / 64
    norm = 2 * 3 / 4
    wire = 512 * (2 * (residual + inner + to_batch) + 4 * norm) / 270e9
    hops = (4 + 2 * 2 + 2 + 6 + 6 + 2 + 4) * 1e-6
    assert best.communication_seconds == pytest.approx(118 * (wire + hops), rel=1e-12)


def test_memory_of_540b_by_hand():
    """On 64 chips, of what they divide: 1 / 64 of the weights, 8 of 512 sequences, a token more than the context."""
    slice = Slice.of(TPU, (4, 4, 4))
    found = {(r.layout, r.attention): r.held for r in plan(PALM, TPU, slice, batch=512, context=2048, weights="int8")}
    held = found["ws2d", "batch"]
    weights = (118 * 18432 * (3 * 73728 + 2 * 48 * 256 + 2 * 256) + 256128 * 18432) / 64
    assert held.weights == pytest.approx(weights, rel=1e-12)
    assert held.cache == 8 * 2049 * 118 * 2 * 256 * 2
    widest = 18432 / 64 + 18432 / 4 + (48 * 256 + 2 * 256 + 2 * 73728) / 16
    assert held.activations == pytest.approx(2 * 512 * widest, rel=1e-12)
    assert found["wgx", "batch"].weights == pytest.approx(weights + 18432 * 73728 * 4 / 64, rel=1e-12)


def test_a_batch_that_chips_do_not_divide_costs_as_the_next_that_they_do():
    for result in plan(PALM, TPU, 64, batch=65, context=2048):
        if result.attention == "batch":
            costs = [result.partition.costs(result.work, batch) for batch in (65, 128)]
            assert costs[0].attention_flops == costs[1].attention_flops
            assert costs[0].cache_bytes == costs[1].cache_bytes


def test_links_of_axes():
    """Over one of three axes a collective has a third of the bandwidth, over two two thirds."""
    slice = Slice.of(TPU, (4, 4, 4), links="axes")
    assert [slice.rate(axes) / TPU.interconnect for axes in ("x", "yz", "xyz")] == pytest.approx([1 / 3, 2 / 3, 1])
    assert Slice.of(TPU, (4, 4, 1), links="axes").rate("xyz") == pytest.approx(TPU.interconnect * 2 / 3)
    assert [Slice.of(Chip.named("h100"), (2, 2, 2)).hops(axes) for axes in ("", "x", "xyz")] == [0, 1, 1]


def test_factorisations():
    for chips in (1, 12, 64, 97):
        shapes = [each.shape for each in Slice.all(TPU, chips)]
        brute = {(x, y, z) for x in range(1, 98) for y in range(1, 98) for z in range(1, 98) if x * y * z == chips}
        assert len(shapes) == len(set(shapes)) and set(shapes) == brute
    assert all(min(each.shape) == 1 for each in Slice.all(Chip.named("tpu-v5e"), 64))


@given(
    phase=st.sampled_from(["prefill", "decode"]),
    context=st.integers(1, 40),
    cached=st.integers(0, 39),
    steps=st.integers(1, 20),
    window=st.integers(1, 50),
    windowed=st.integers(0, 4),
)
def test_pairs_of_queries_and_keys_by_counting(phase, context, cached, steps, window, windowed):
    model = replace(SMALL, window=window, windowed_layers=windowed)
    ends = range(min(cached, context - 1) + 1, context + 1) if phase == "prefill" else range(context, context + steps)
    seen = sum((4 - windowed) * end + windowed * min(end, window) for end in ends)
    pairs, read = _pairs(model, Work(phase, context, steps, min(cached, context - 1) if phase == "prefill" else 0))
    assert pairs == pytest.approx(seen / (steps if phase == "decode" else 1))
    if phase == "decode":
        assert read == pairs


@settings(max_examples=30, deadline=None)
@given(
    phase=st.sampled_from(["prefill", "decode"]),
    batch=st.integers(1, 40),
    kv_heads=st.sampled_from([1, 2, 8]),
    window=st.sampled_from([None, 64, 4096]),
    windowed=st.integers(1, 3),
    chips=st.sampled_from([1, 4, 6]),
    cached=st.integers(0, 200),
)
def test_longest_context_fits_and_one_more_does_not(phase, batch, kv_heads, window, windowed, chips, cached):
    model = replace(SMALL, kv_heads=kv_heads, window=window, windowed_layers=windowed)
    chip = replace(TPU, memory=3e8)
    for result in plan(model, chip, chips, batch=batch, context=2, phase=phase):
        work = replace(result.work, cached=cached if phase == "prefill" else 0)
        longest = limit(model, work, result.held, chip.memory)
        assert cached or longest == result.longest_context
        if longest > cached + 1:
            at = {extra: replace(work, context=longest + extra) for extra in (-1, 0, 1)}
            if phase == "decode":  # which ends with a token more
                at = {extra: replace(work, context=work.context - 1) for extra, work in at.items()}
            held = {extra: result.partition.held(work, batch).total for extra, work in at.items()}
            assert held[0] <= chip.memory < held[1]


def test_window_bounds_the_cache():
    model = replace(SMALL, window=100)
    assert longest_context(model, TPU, 4, batch=4) is None
    assert longest_context(replace(model, windowed_layers=3), TPU, 4, batch=4) > 10**6
    assert longest_context(model, replace(TPU, memory=1e6), 4, batch=4) == 0


def test_frontier_is_what_nothing_dominates():
    """Against plan(), batch by batch, all tori and types."""
    chips, batches, types = (4, 8), (1, 3, 16, 64), ("bf16", "int8")
    model, chip = Model.named("llama-3-8b"), Chip.named("tpu-v5e")
    found = pareto(model, chip, chips, context=4096, batches=batches, weights=types)
    every = [
        result
        for count in chips
        for batch in batches
        for weights in types
        for result in plan(model, chip, count, batch=batch, context=4096, weights=weights, every_torus=True)
        if result.fits
    ]
    best = {
        (a.seconds, a.cost)
        for a in every
        if not any(
            b.seconds <= a.seconds and b.cost <= a.cost and (b.seconds < a.seconds or b.cost < a.cost) for b in every
        )
    }
    assert [(each.seconds, each.cost) for each in found] == sorted(best)
    assert 4 < len(found) < len(every) / 20


def test_ranking():
    results = plan(PALM, TPU, 64, batch=512, context=2048, every_torus=True)
    fitting = [result for result in results if result.fits]
    assert fitting == results[: len(fitting)] and fitting == sorted(fitting, key=lambda each: each.seconds)
    assert all(result.bytes > TPU.memory for result in results[len(fitting) :])
    best = plan(PALM, TPU, 64, batch=512, context=2048)
    assert len({(each.layout, each.attention) for each in best}) == len(best) == 10
    for each in best:
        rivals = [r for r in results if (r.layout, r.attention, r.fits) == (each.layout, each.attention, each.fits)]
        measure = (lambda r: r.seconds) if each.fits else (lambda r: r.bytes)
        assert measure(each) == min(map(measure, rivals))


def test_whole_search_is_fast():
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        pareto(PALM, TPU, 256, context=2048, batches=[2**i for i in range(21)])
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 2


def test_calibration_recovers_what_made_the_times():
    truth = Efficiency(0.6, 0.8, 0.5, 3e-3)
    slice = Slice.of(TPU, (4, 4, 4))
    points = []
    for batch in (1, 16, 64, 512):
        for weights, overlap in (("bf16", 0.0), ("int8", 0.5)):
            case = dict(batch=batch, context=2048, weights=weights, overlap=overlap)
            slow = plan(PALM, TPU, slice, efficiency=truth, **case)[0]
            ideal = next(r for r in plan(PALM, TPU, slice, **case) if r.partition == slow.partition)
            points.append((ideal, slow.seconds))
    found = calibrate(points)
    for name in ("flops", "bandwidth", "interconnect", "overhead"):
        assert getattr(found.efficiency, name) == pytest.approx(getattr(truth, name), rel=1e-6)
    assert max(map(abs, found.errors)) < 1e-9 and found.undetermined == ()


def test_calibration_says_what_points_do_not_tell():
    results = [plan(PALM, TPU, 64, batch=batch, context=2048)[0] for batch in (1, 2, 4)]
    points = [(each, each.communication_seconds + each.memory_seconds / 0.4) for each in results]
    found = calibrate(points, fit=("flops", "bandwidth"))
    assert found.undetermined == ("flops",) and found.efficiency.flops == 1
    assert found.efficiency.bandwidth == pytest.approx(0.4)
    points = [(each, 0.5 * each.seconds) for each in results]  # faster than can be: no efficiency is above 1
    faster = calibrate(points, fit=("flops", "bandwidth", "overhead"))
    assert faster.efficiency == Efficiency() and min(faster.errors) == pytest.approx(1)


@pytest.mark.parametrize("name", DOCUMENTED)
def test_examples(name):
    done = doctest.testmod(importlib.import_module(f"pykernels.inference.plan.{name}"))
    assert done.attempted and not done.failed


def test_drawing(tmp_path):
    results = pareto(PALM, TPU, 64, context=2048)
    lines = draw(results, columns=50, rows=10).splitlines()
    assert len(lines) > 13 and sum(lines[1 + i].count("o") + lines[1 + i].count("x") for i in range(10)) > 3
    pytest.importorskip("matplotlib")
    draw(results, tmp_path / "frontier.png")
    assert (tmp_path / "frontier.png").read_bytes()[:4] == b"\x89PNG"
