"""Programs of tasks: every task once, steps in order, whatever the threads."""

from __future__ import annotations

import os
from functools import partial

import numba
import numpy as np
import pytest
from conftest import run_threads

from pykernels.kernels._program import WORDS, Given, Program, Task, number, vector


def _add_neighbours(i, a):
    """``out[i] = factor * (x[i] + x[i + 1])``, which needs a neighbour's task of the step before."""
    x, out = vector(a, 0, np.float32), vector(a, 2, np.float32)
    out[i] = np.float32(number(a, 4)) * (x[i] + x[(i + 1) % x.size])


def _count(i, a):
    vector(a, 0, np.int64)[i + a[2]] += 1


ADD_NEIGHBOURS, COUNT = Task(_add_neighbours), Task(_count)


def chain(size, steps):
    """Halves of sums of neighbours, again and again, through memory of the run."""
    program = Program()
    rooms = program.room(4 * size), program.room(4 * size)
    program.add(ADD_NEIGHBOURS, size, Given("x"), rooms[0], 0.5)
    for step in range(steps - 2):
        program.add(ADD_NEIGHBOURS, size, rooms[step % 2], rooms[1 - step % 2], 0.5)
    program.add(ADD_NEIGHBOURS, "last", rooms[steps % 2], Given("out"), 0.5)
    return program


def expected(x, steps):
    for _ in range(steps):
        x = np.float32(0.5) * (x + np.roll(x, -1))
    return x


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("size", [1, 2, 37])
def test_steps_see_what_those_before_wrote(threads, size):
    program, x, out = chain(size, 300), np.random.default_rng(size).random(size, np.float32), np.empty(size, np.float32)
    before = numba.get_num_threads()
    numba.set_num_threads(min(threads, before))
    try:
        for _ in range(20):
            out[:] = np.nan
            program.run({"last": size}, {"x": x, "out": out})
            np.testing.assert_array_equal(out, expected(x, 300))
    finally:
        numba.set_num_threads(before)


def test_runs_at_once_have_memory_of_their_own():
    program = chain(50, 100)

    def work(seed):
        x, out = np.random.default_rng(seed).random(50, np.float32), np.empty(50, np.float32)
        for _ in range(20):
            program.run({"last": 50}, {"x": x, "out": out})
            np.testing.assert_array_equal(out, expected(x, 100))

    run_threads(*[partial(work, seed) for seed in range(2 * (os.cpu_count() or 1) + 1)])


def test_every_task_is_done_once_and_no_other():
    program, counts = Program(), np.zeros(200, np.int64)
    for first, count in ((0, 7), (50, 1), (60, 0), (100, 99)):
        program.add(COUNT, count, counts, first)
    program.add(COUNT, "none", counts, 30)
    for _ in range(50):
        program.run({"none": 0}, {})
    found = np.flatnonzero(counts)
    np.testing.assert_array_equal(found, [*range(7), 50, *range(100, 199)])
    assert (counts[found] == 50).all()


def test_memory_that_is_freed_is_given_again():
    program = Program()
    kept, free = program.room(100), program.free
    first = program.room(64)
    program.free = free
    assert program.room(10) == (first.at, 10) and kept.at + 100 <= first.at


def test_too_many_arguments():
    with pytest.raises(ValueError, match=f"at most {WORDS}"):
        Program().add(COUNT, 1, *range(WORDS + 1))
