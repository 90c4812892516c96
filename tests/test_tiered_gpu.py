"""The Triton kernels of the tiered family against the definition, in the interpreter where there is no GPU."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest

pytest.importorskip("triton")
import torch
import triton
import triton.language as tl

from pykernels.kernels.tiered import cases, energy_cases, gpu, reference
from pykernels.kernels.tiered.energy_cases import Nonbonded
from pykernels.kernels.tiered.gpu_core import angle, arccos
from pykernels.kernels.tiered.problem import TERMS, Motion, System, Tree
from pykernels.tiered import Tiers

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TOLERANCE = {np.float64: 1e-12, np.float32: 4e-6}
FEW = {"bond": 5, "angle": 6, "series": 4, "periodic": 5, "improper": 4, "pair": 5}
TREES = ("one atom", "all fixed", "single atoms", "large groups")


@triton.jit
def _angles_kernel(x_ptr, y_ptr, angle_ptr, arccos_ptr, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + i)
    tl.store(angle_ptr + i, angle(x, tl.load(y_ptr + i)))
    tl.store(arccos_ptr + i, arccos(x))


class State(NamedTuple):
    positions: Any
    motion: Motion
    first: Any
    first_motion: Motion
    second: Any
    second_motion: Motion


def on_device(value: Any) -> Any:
    if isinstance(value, tuple):
        return type(value)(*map(on_device, value))
    return torch.tensor(value, device=DEVICE) if isinstance(value, np.ndarray) else value


def nan_like(value: Any) -> Any:
    if isinstance(value, tuple):
        return type(value)(*map(nan_like, value))
    return torch.full(value.shape, float("nan"), dtype=torch.from_numpy(value).dtype, device=DEVICE)


def agree(found: torch.Tensor, expected: np.ndarray, tolerance: float, scale: float = 1.0) -> None:
    scale = max(scale, float(np.abs(expected).max(initial=0)))
    np.testing.assert_allclose(found.cpu().numpy(), expected, rtol=0, atol=tolerance * scale)


def moved(name: str, dtype: Any, batch: int, shared: bool) -> tuple[Tree, np.ndarray, Motion]:
    n_atoms, options = cases.TREES[name]
    tree = Tiers(**cases.tiers(n_atoms, **options)).tree
    sizes = len(tree.macro_of_group), len(tree.axis_anchor), len(tree.macro_ptr) - 1
    return tree, cases.positions((1 if shared else batch, n_atoms), dtype), cases.motion(batch, *sizes, dtype)


@pytest.mark.parametrize("whole", [False, True], ids=["micro", "macro"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("name", TREES)
def test_transform(name, dtype, whole):
    tree, x, motion = moved(name, dtype, 2, shared=whole)
    grad = cases.positions((2, x.shape[1]), dtype, seed=1)
    expected = np.empty_like(grad)
    reference.transform(x, motion, tree, whole, expected)
    device_tree, device_motion, found = on_device(tree), on_device(motion), nan_like(grad)
    gpu.transform(on_device(x), device_motion, device_tree, whole, found)
    agree(found, expected, TOLERANCE[dtype])

    at_motion, at_x = Motion(*map(np.empty_like, motion)), np.empty_like(grad)
    reference.transform_backward(grad, x, motion, tree, whole, at_motion, at_x)
    device_at_motion, device_at_x = nan_like(motion), nan_like(grad)
    gpu.transform_backward(
        on_device(grad), on_device(x), device_motion, device_tree, whole, device_at_motion, device_at_x
    )
    agree(device_at_x, at_x, TOLERANCE[dtype])
    for part, of_reference in zip(device_at_motion, at_motion, strict=True):
        agree(part, of_reference, TOLERANCE[dtype], float(np.abs(at_x).max()))


def test_a_point_of_no_group_and_a_motion_by_zero_change_no_bit():
    tree, x, motion = moved("large groups", np.float32, 1, shared=False)
    found = nan_like(x)
    gpu.transform(on_device(x), on_device(Motion(*map(np.zeros_like, motion))), on_device(tree), True, found)
    np.testing.assert_array_equal(found.cpu().numpy(), x)


def test_angles():
    turns = np.concatenate([np.linspace(-np.pi, np.pi, 4092)[1:], [1e-9, np.pi - 1e-9, np.pi / 8]])
    x, y = np.append(np.cos(turns), [-1.0, 0]), np.append(np.sin(turns), [0.0, 0])
    found, arccosines = nan_like(x), nan_like(x)
    _angles_kernel[(1,)](on_device(x), on_device(y), found, arccosines, BLOCK=4096)
    np.testing.assert_array_max_ulp(found.cpu().numpy(), np.arctan2(y, x), 3)
    np.testing.assert_allclose(arccosines.cpu().numpy(), np.arccos(x), rtol=1e-15, atol=2e-16)


SYSTEMS = {
    "as published": (40, 29, FEW, {}, Nonbonded(kinds=3)),
    "signed, reaction field": (90, 70, FEW, {"signed": True, "cos_limit": 1.0}, Nonbonded(12.0, 13.0, 0.001, 0.1, 4)),
    "pairs only": (20, 20, {}, {}, Nonbonded(np.inf, kinds=2)),
    "terms only": (20, 0, FEW, {"signed": True}, Nonbonded(kinds=2)),
    "one pair": (5, 1, {}, {}, Nonbonded(kinds=1)),
}


def energies(x: np.ndarray, system: System, everywhere: bool) -> tuple[torch.Tensor, torch.Tensor]:
    terms, gradient = nan_like(np.empty((len(x), len(TERMS)))), nan_like(x)
    gpu.energy(on_device(x), on_device(system), everywhere, terms, gradient)
    return terms, gradient


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("name", SYSTEMS)
def test_energy(name, dtype):
    n_atoms, movable, terms, options, nonbonded = SYSTEMS[name]
    system = energy_cases.system(n_atoms, movable, terms, dtype, nonbonded, **options)
    x = cases.positions((2, n_atoms), dtype)
    everywhere = name != "as published"
    expected, gradient = np.empty((2, len(TERMS))), np.empty_like(x)
    reference.energy(x, system, everywhere, expected, gradient)
    found, slopes = energies(x, system, everywhere)
    for column in range(len(TERMS)):
        agree(found[:, column], expected[:, column], TOLERANCE[dtype])
    agree(slopes, gradient, TOLERANCE[dtype])


def test_a_batch_gives_the_bits_of_its_members():
    system = energy_cases.system(40, 29, FEW, np.float32, Nonbonded(kinds=3))
    x = cases.positions((2, 40), np.float32)
    together = energies(x, system, True)
    for b in range(2):
        for whole, member in zip(together, energies(x[b : b + 1], system, True), strict=True):
            assert torch.equal(whole[b], member[0])


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_atoms_in_one_place(dtype, signed):
    system = energy_cases.system(12, 9, FEW, dtype, Nonbonded(kinds=2), signed=signed)
    x = np.zeros((1, 12, 3), dtype)
    x[0, 6:] = cases.positions((6,), dtype)
    expected, gradient = np.empty((1, len(TERMS))), np.empty_like(x)
    reference.energy(x, system, True, expected, gradient)
    found, slopes = energies(x, system, True)
    assert torch.isfinite(found).all() and torch.isfinite(slopes).all()
    np.testing.assert_allclose(found.cpu().numpy(), expected, rtol=1e-5)
    agree(slopes, gradient, 1e-4 if dtype == np.float32 else 1e-10)


def test_gradient_by_finite_differences():
    system = energy_cases.system(12, 12, FEW, np.float64, Nonbonded(np.inf, kinds=2), signed=True)
    x, direction, width = cases.positions((12,)), cases.positions((12,), seed=1), 1e-6
    terms, gradient = energies(np.stack([x - width * direction, x, x + width * direction]), system, True)
    below, _, above = terms.sum(1).cpu().numpy()
    slope = np.sum(gradient[1].cpu().numpy() * direction)
    np.testing.assert_allclose((above - below) / (2 * width), slope, rtol=1e-6)


def test_descend_does_what_its_parts_do():
    tree = Tiers(12, [0, 4, 10], np.arange(10), [0, -1], [1], [10], [4], [10, 11]).tree
    x, motion = cases.positions((1, 12)), cases.motion(1, 2, 1, 1)
    system = energy_cases.system(12, 12, FEW, np.float64, Nonbonded(kinds=2))
    zeros = [np.zeros_like(each) for each in (x, *motion)]
    state = State(x, motion, zeros[0], Motion(*zeros[1:]), zeros[0], Motion(*zeros[1:]))
    rule, rates = (0.9, 0.999, 1e-8, 1e11), [(0.01, 0.001), (0.02, 0.002)]
    device_state, history = on_device(state), nan_like(np.empty((2, 1)))
    constant = on_device(np.array([3.0]))
    gpu.descend(device_state, on_device(tree), True, on_device(system), constant, rule, 3, rates, history)

    out, grad, terms, totals = np.empty_like(x), np.empty_like(x), np.empty((1, len(TERMS))), []
    at_motion, at_x = Motion(*map(np.empty_like, motion)), np.empty_like(x)
    first, second = ([each.copy() for each in zeros] for _ in range(2))
    for number in range(2):
        reference.transform(x, motion, tree, True, out)
        reference.energy(out, system, False, terms, grad)
        totals.append(terms.sum(1) + 3)
        reference.transform_backward(grad, x, motion, tree, True, at_motion, at_x)
        parts = zip((x, *motion), (at_x, *at_motion), first, second, strict=True)
        for place, part in enumerate(parts):
            reference.adam(*part, rates[number][place >= 4], 4 + number, *rule)
    np.testing.assert_allclose(history.cpu().numpy(), totals, rtol=1e-10)
    for found, expected in zip((device_state.positions, *device_state.motion), (x, *motion), strict=True):
        agree(found, expected, 1e-9)


def test_adam_in_float32():
    rng = np.random.default_rng(0)
    given = [rng.standard_normal(100).astype(np.float32) for _ in range(4)]
    given[1][:2], given[3] = (1e20, np.nan), given[3] ** 2
    found = [on_device(each) for each in given]
    options = (0.1, 7, 0.9, 0.999, 1e-8, 1e11)
    reference.adam(*given, *options)
    gpu.adam(*found, *options)
    for mine, expected in zip(found, given, strict=True):
        np.testing.assert_allclose(mine.cpu().numpy(), expected, rtol=1e-6)


def test_terms_that_are_missing():
    system = energy_cases.system(5, 5, {}, np.float64, Nonbonded(kinds=1))
    scored = system._replace(vina=system.vina._replace(atoms=np.arange(2)))
    with pytest.raises(NotImplementedError, match=r"gpu backend has no energy term vina.*backend='cpu'"):
        energies(np.zeros((1, 5, 3)), scored, True)
