"""Communication volumes: the counts of the simulated mesh, the paper's sums, and what the paper concludes from them."""

from __future__ import annotations

import doctest
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pykernels.inference.mesh import prove
from pykernels.inference.plan import volumes
from pykernels.inference.plan.volumes import ATTENTION, LAYOUTS, Shapes, collectives, padded

PALM = Shapes(18432, 73728, 48, 1, 256, gated=True, parallel=True)
TORUS = (4, 4, 4)


def test_doctests():
    assert doctest.testmod(volumes).failed == 0


@pytest.mark.parametrize("parallel", [False, True])
@pytest.mark.parametrize(("kv_heads", "torus"), [(1, (2, 2, 2)), (2, (2, 3, 2)), (4, (3, 1, 2)), (3, (1, 2, 4))])
def test_nothing_is_divisible(kv_heads, torus, parallel):
    shapes = Shapes(13, 22, 2 * kv_heads, kv_heads, 6, gated=parallel, parallel=parallel)
    report = prove(shapes, torus, batch=5, prompt=3, rotary_theta=100.0)
    assert report.holds, f"\n{report}"


@st.composite
def problems(draw):
    kv_heads = draw(st.sampled_from([1, 1, 2, 3, 4]))
    shapes = Shapes(
        width=draw(st.integers(1, 20)),
        hidden=draw(st.integers(1, 30)),
        heads=kv_heads * draw(st.integers(1, 4)),
        kv_heads=kv_heads,
        head_dim=2 * draw(st.integers(1, 3)),
        gated=draw(st.booleans()),
        parallel=draw(st.booleans()),
    )
    torus = draw(st.tuples(*[st.integers(1, 4)] * 3).filter(lambda torus: math.prod(torus) <= 16))
    return shapes, torus, draw(st.integers(1, 9)), draw(st.integers(1, 4)), draw(st.sampled_from([None, 100.0]))


@settings(max_examples=12, deadline=None)
@given(problems(), st.integers(0, 2**32))
def test_every_layout_moves_what_the_formulas_say_and_computes_the_block(problem, seed):
    shapes, torus, batch, prompt, theta = problem
    report = prove(shapes, torus, batch, prompt, rotary_theta=theta, seed=seed)
    assert len(report.rows) == 20
    assert report.holds, f"\n{report}"


@pytest.mark.exhaustive
@settings(max_examples=500, deadline=None)
@given(problems(), st.integers(0, 2**32))
def test_every_layout_at_length(problem, seed):
    shapes, torus, batch, prompt, theta = problem
    report = prove(shapes, torus, batch, prompt, steps=2, rotary_theta=theta, seed=seed)
    assert report.holds, f"\n{report}"


def feedforward(shapes, layout, torus, batch):
    """Elements that a feedforward moves, of a serial block, as the paper counts them: without (K - 1) / K."""
    found = collectives(shapes._replace(parallel=False), layout, "heads", torus, batch)
    names = ("feedforward weights", "feedforward input", "up", "down", "feedforward sum")
    return sum(c.elements for c in found if c.where in names)


@pytest.mark.parametrize("gated", [False, True])
def test_sums_are_the_paper_s(gated):
    """Appendix A; the paper has two matrices, a gate adds a third to the weights, and an F / YZ to what is reduced."""
    shapes, (X, Y, Z), B = PALM._replace(gated=gated), TORUS, 512
    E, F, n = shapes.width, shapes.hidden, math.prod(TORUS)
    assert feedforward(shapes, "ws1d", TORUS, B) == 2 * B * E
    assert feedforward(shapes, "ws2d", TORUS, B) == 2 * B * (E // X + F // (Y * Z)) + gated * B * F // (Y * Z)
    for layout, N in (("wgx", X), ("wgxy", X * Y)):
        assert feedforward(shapes, layout, TORUS, B) == (2 + gated) * E * F * N // n + 2 * B * E // N
    assert feedforward(shapes, "wgxyz", TORUS, B) == (2 + gated) * E * F  # one chip's activations stay


def test_the_best_torus_and_the_gain_over_one_dimension():
    """2D is least at X = sqrt(n E / F), where it moves 8 B L E / sqrt(n) of F = 4 E: under 1D from 16 chips on."""
    shapes, n, B = PALM._replace(gated=False), 256, 64
    moved = {X: feedforward(shapes, "ws2d", (X, n // X, 1), B) for X in (1, 2, 4, 8, 16, 32, 64)}
    assert min(moved, key=moved.get) == math.isqrt(n * shapes.width // shapes.hidden) == 8
    assert moved[8] == 8 * B * shapes.width // math.isqrt(n)
    sixteen, thirty_two = ((2, 8, 1), (2, 16, 1))
    assert feedforward(shapes, "ws2d", sixteen, B) == feedforward(shapes, "ws1d", sixteen, B)
    assert feedforward(shapes, "ws2d", thirty_two, B) < feedforward(shapes, "ws1d", thirty_two, B)


def test_tokens_at_which_gathering_weights_wins():
    """540 billion parameters on 64 chips: from F / 4 tokens over x, from F over x and y, near 2**20 over all."""
    shapes, tokens = PALM._replace(gated=False, parallel=False), np.arange(64, 2**21, 64)

    def moved(layout):
        found = collectives(shapes, layout, "heads", TORUS, tokens)
        return sum(
            c.moved
            for c in found
            if c.where.startswith(("feedforward w", "feedforward i", "feedforward s", "up", "down"))
        )

    first = [
        tokens[np.argmax(moved(more) < moved(less))]
        for less, more in (("ws2d", "wgx"), ("wgx", "wgxy"), ("wgxy", "wgxyz"))
    ]
    np.testing.assert_allclose(first, [shapes.hidden // 4, shapes.hidden, 1.18e6], rtol=0.01)


def test_parallel_blocks_save_one_input_and_one_sum():
    serial, parallel = (
        sum(c.moved for c in collectives(PALM._replace(parallel=parallel), "ws2d", "batch", TORUS, 512))
        for parallel in (False, True)
    )
    once = 2 * 512 * (18432 // 4) * 15 // 16 + 512 * 2 * 3 // 4
    assert serial - parallel == once


def test_padding():
    assert padded(PALM, TORUS, "heads")[2:5] == (64, 1, 64 * 256)  # the paper's 48 to 64 heads
    assert padded(PALM, TORUS, "batch")[2:5] == (48, 1, 48 * 256)
    assert padded(PALM._replace(heads=48, kv_heads=48), (4, 4, 2), "heads")[2:4] == (64, 64)
    assert padded(PALM._replace(heads=64, kv_heads=8), TORUS, "heads")[2:4] == (64, 8)
    ragged = padded(Shapes(13, 22, 6, 2, 5), (2, 3, 2), "heads")
    assert ragged == (24, 24, 12, 2, 60, 12)  # six chips share a key head: three query heads become six, 5 columns 6
    assert padded(Shapes(13, 22, 8, 4, 5), (2, 3, 2), "heads")[2:4] == (
        12,
        6,
    )  # 4 does not divide the 6 chips of y and z
    assert padded(Shapes(13, 22, 6, 2, 5), (2, 3, 2), "batch") == (24, 24, 6, 2, 36, 12)


def test_caches_of_the_paper_s_first_table():
    """One head of 64 padded ones on a chip; one key head on all chips; one key head of 1 / 64 of the sequences."""
    multihead = PALM._replace(kv_heads=48, head_dim=128)
    for shapes, attention, share in ((multihead, "heads", 1), (PALM, "heads", 1), (PALM, "batch", 64)):
        held = volumes.cache_elements(shapes, "ws2d", attention, TORUS, 512, 100)
        assert held == 2 * 512 * 100 * shapes.head_dim // share


def test_arrays_of_batches_are_as_one_by_one():
    batches = np.array([1, 5, 64, 100], np.int32)
    for layout in LAYOUTS:
        for attention in ATTENTION:
            for i, batch in enumerate(batches):
                many = collectives(PALM, layout, attention, TORUS, batches, 2048)
                one = collectives(PALM, layout, attention, TORUS, int(batch), 2048)
                assert [int(np.broadcast_to(c.moved, 4)[i]) for c in many] == [c.moved for c in one]


def test_one_chip_moves_nothing():
    assert all(collectives(PALM, layout, over, (1, 1, 1), 8) == () for layout in LAYOUTS for over in ATTENTION)


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"layout": "3d"}, ValueError, "layout='3d': expected one of ws1d"),
        ({"attention": "keys"}, ValueError, "attention='keys'"),
        ({"torus": (4, 0, 4)}, ValueError, "torus axis Y=0"),
        ({"torus": (4, 4)}, ValueError, "torus=.*X, Y, Z"),
        ({"torus": (4, 2.0, 4)}, TypeError, "torus axis Y"),
        ({"batch": 0}, ValueError, "batch=0"),
        ({"batch": np.array([4, 0])}, ValueError, "batch"),
        ({"batch": np.array([4.0])}, ValueError, "float64"),
        ({"length": 0}, ValueError, "length=0"),
        ({"shapes": PALM._replace(kv_heads=5)}, ValueError, "kv_heads=5: expected a divisor of the 48"),
        ({"shapes": PALM._replace(hidden=0)}, ValueError, "hidden=0"),
    ],
)
def test_bad_input(changed, error, message):
    given = {"shapes": PALM, "layout": "ws2d", "attention": "heads", "torus": (4, 2, 4), "batch": 8, "length": 1}
    collectives(**given)  # what was asked for before does not matter, equal to what is asked now or not
    with pytest.raises(error, match=message):
        collectives(**{**given, **changed})
