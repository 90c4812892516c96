"""The transform's kernels against the definition, on trees of every shape."""

from __future__ import annotations

import hashlib
import importlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pykernels.kernels.tiered import reference
from pykernels.kernels.tiered.problem import Motion, Tree

EMPTY = np.empty(0, np.int64)


@pytest.fixture(params=["cpu_transform"])
def launchers(request):
    return importlib.import_module(f"pykernels.kernels.tiered.{request.param}")


def make_tree(sizes, macros=0, loose=3, seed=0):
    """Groups of these sizes, most with an axis, all but the first in macro-groups, the last of which is empty."""
    rng = np.random.default_rng(seed)
    groups, grouped = len(sizes), int(np.sum(sizes))
    points = rng.permutation(grouped + loose)
    ptr = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    macro_of_group = rng.integers(0, macros - 1, groups) if macros > 1 else np.full(groups, -1)
    macro_of_group[:1] = -1
    order = np.argsort(macro_of_group, kind="stable")
    order = order[macro_of_group[order] >= 0]
    has_axis = np.array([g % 4 != 3 and 1 < sizes[g] < grouped + loose for g in range(groups)], bool)
    axis_of_group = np.where(has_axis, np.cumsum(has_axis) - 1, -1)
    bonded = [rng.choice(points[a:z]) for a, z, has in zip(ptr[:-1], ptr[1:], has_axis, strict=True) if has]
    anchor = [
        rng.choice(np.concatenate([points[:a], points[z:]])[:7])
        for a, z, has in zip(ptr[:-1], ptr[1:], has_axis, strict=True)
        if has
    ]
    fixed = np.zeros(grouped + loose, np.uint8)
    fixed[rng.integers(0, grouped + loose, 4)] = 1
    return Tree(
        ptr,
        points[:grouped],
        macro_of_group,
        np.searchsorted(macro_of_group[order], np.arange(macros + 1)),
        order,
        axis_of_group,
        np.array(anchor, np.int64),
        np.array(bonded, np.int64),
        np.sort(points[grouped:]),
        fixed,
    )


def make_motion(tree, batch, dtype, scale=1.0, seed=1):
    rng = np.random.default_rng(seed)
    groups, macros, axes = len(tree.group_ptr) - 1, len(tree.macro_ptr) - 1, len(tree.axis_anchor)
    shapes = ((groups, 3), (groups, 3), (axes,), (macros, 3), (macros, 3))
    return Motion(*(rng.normal(0, scale, (batch, *shape)).astype(dtype) for shape in shapes))


def make_points(tree, batch, dtype, seed=2):
    return (np.random.default_rng(seed).normal(0, 3, (batch, len(tree.fixed), 3)) + 20).astype(dtype)


def poisoned(like):
    return np.full_like(like, np.nan)


def run(module, points, motion, tree, macro_pivot, grad):
    out, at_points, at_motion = poisoned(grad), poisoned(grad), Motion(*map(poisoned, motion))
    module.transform(points, motion, tree, macro_pivot, out)
    module.transform_backward(grad, points, motion, tree, macro_pivot, at_motion, at_points)
    return [out, at_points, *at_motion]


def check(module, tree, macro_pivot, dtype, motion, points, batch):
    grad = np.random.default_rng(3).normal(size=(batch, *points.shape[1:])).astype(dtype)
    found = run(module, points, motion, tree, macro_pivot, grad)
    wide = Motion(*(each.astype(np.float64) for each in motion))
    expected = run(reference, points.astype(np.float64), wide, tree, macro_pivot, grad.astype(np.float64))
    largest = max(np.diff(tree.group_ptr), default=1)
    for a, b in zip(found, expected, strict=True):
        assert np.isfinite(a).all()
        tolerance = 16 * np.finfo(dtype).eps * np.sqrt(largest)
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * np.abs(b).max(initial=1))


TREES = {
    "one atom": ([1], 0, 0),
    "one group": ([18], 0, 4),
    "many": ([1, 2, 18, 300, 3, 8, 7, 1, 2, 5, 9, 4], 4, 30),
    "small macro-groups": ([2, 3, 4, 5, 6, 1, 1], 20, 1),
    "no groups": ([], 0, 5),
    "only an empty macro-group": ([3], 1, 2),
}


@pytest.mark.parametrize("macro_pivot", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", TREES)
def test_agrees_with_the_definition(launchers, name, dtype, macro_pivot):
    tree = make_tree(*TREES[name])
    check(launchers, tree, macro_pivot, dtype, make_motion(tree, 3, dtype), make_points(tree, 3, dtype), 3)


@pytest.mark.parametrize("scale", [0.0, 1e-12, 1e-4, 30.0, 1e5])
def test_angles_of_every_size(launchers, scale):
    tree = make_tree(*TREES["many"])
    check(
        launchers, tree, True, np.float64, make_motion(tree, 2, np.float64, scale), make_points(tree, 2, np.float64), 2
    )


def test_positions_may_be_shared(launchers):
    tree = make_tree(*TREES["many"])
    check(launchers, tree, True, np.float32, make_motion(tree, 5, np.float32), make_points(tree, 1, np.float32), 5)


@pytest.mark.parametrize("macro_pivot", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_no_motion_changes_no_bit(launchers, dtype, macro_pivot):
    tree = make_tree(*TREES["many"])._replace(fixed=np.zeros(390, np.uint8))
    points, grad = make_points(tree, 2, dtype), make_points(tree, 2, dtype, 5)
    out, at_points, *_ = run(launchers, points, make_motion(tree, 2, dtype, 0), tree, macro_pivot, grad)
    np.testing.assert_array_equal(out, points)
    ends = np.unique(np.concatenate([tree.axis_anchor, tree.axis_bonded]))
    np.testing.assert_array_equal(np.delete(at_points, ends, 1), np.delete(grad, ends, 1))
    np.testing.assert_allclose(at_points, grad, rtol=1e-4)


def test_points_on_the_axis_stay(launchers):
    tree = make_tree([4], 0, 1)._replace(
        fixed=np.zeros(5, np.uint8),
        group_atoms=np.arange(1, 5),
        loose=np.arange(1),
        axis_anchor=np.array([0]),
        axis_bonded=np.array([1]),
    )
    points = np.float64([[[i, 2 * i, -i] for i in range(5)]])
    motion = make_motion(tree, 1, np.float64, 0)._replace(axis=np.array([[2.0]]))
    out, *gradients = run(launchers, points, motion, tree, False, np.ones_like(points))
    np.testing.assert_allclose(out, points, atol=1e-14)
    assert all(np.isfinite(each).all() for each in gradients)


@pytest.mark.parametrize("macro_pivot", [False, True])
def test_finite_differences(launchers, macro_pivot):
    tree = make_tree([1, 2, 5, 3, 4, 6, 2], 3, 3)
    tree.fixed[...] = 0
    motion, points = make_motion(tree, 1, np.float64), make_points(tree, 1, np.float64)
    grad = np.random.default_rng(6).normal(size=points.shape)
    _, at_points, *at_motion = run(launchers, points, motion, tree, macro_pivot, grad)

    def energy():
        launchers.transform(points, motion, tree, macro_pivot, out)
        return np.sum(out * grad)

    out, step = np.empty_like(points), 1e-5
    for variable, gradient in zip((points, *motion), (at_points, *at_motion), strict=True):
        for i in np.ndindex(variable.shape):
            value = variable[i]
            variable[i] = value + step
            above = energy()
            variable[i] = value - step
            slope = (above - energy()) / (2 * step)
            variable[i] = value
            assert gradient[i] == pytest.approx(slope, rel=1e-6, abs=1e-6)


def test_fixed_points_have_no_gradient_even_of_nan(launchers):
    tree = make_tree(*TREES["many"])
    tree.fixed[tree.axis_anchor[0]] = 1
    grad = make_points(tree, 1, np.float32, 4)
    grad[:, tree.fixed != 0] = np.nan
    at_points = run(launchers, make_points(tree, 1, np.float32), make_motion(tree, 1, np.float32), tree, False, grad)[1]
    assert (at_points[:, tree.fixed != 0] == 0).all()


@pytest.mark.parametrize("macro_pivot", [False, True])
def test_a_batch_is_its_members(launchers, macro_pivot):
    tree = make_tree([9] * 300 + [1, 30], 20, 200)
    motion, points = make_motion(tree, 7, np.float32), make_points(tree, 7, np.float32)
    together = run(launchers, points, motion, tree, macro_pivot, points)
    for b in range(7):
        some = slice(b, b + 1)
        member = Motion(*(each[some] for each in motion))
        alone = run(launchers, points[some], member, tree, macro_pivot, points[some])
        assert all(np.array_equal(a[some], z) for a, z in zip(together, alone, strict=True))


def digest():
    """Of results in both ways to share work: over conformations and within one."""
    from pykernels.kernels.tiered import cpu_transform

    found = hashlib.sha256()
    tree = make_tree([9] * 1300 + [1, 30], 20, 200)
    for batch in (1, 5):
        motion, points = make_motion(tree, batch, np.float32), make_points(tree, batch, np.float32)
        for each in run(cpu_transform, points, motion, tree, True, points):
            found.update(each.tobytes())
    return found.hexdigest()


def test_thread_count_does_not_change_the_bytes():
    found = set()
    for threads in ("1", "2", "3"):
        env = {**os.environ, "NUMBA_NUM_THREADS": threads, "PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, "-c", "import test_tiered_kernels as t; print(t.digest())"]
        done = subprocess.run(command, env=env, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr
        found.add(done.stdout)
    assert len(found) == 1
