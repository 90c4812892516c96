"""3T on the GPU: transform against a copy, energy against float32 arithmetic, and the whole step of many conformations.

The system is the published complex where `tiered_data` finds it, else its polymer.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from .gpu_search import multiply_rate
from .gpu_timing import Call, Row, interleaved, rows

CONFORMATIONS = (1, 256)
PAIR_FLOPS = 35
"""Operations of a pair that a movable atom sees, as the kernel does them; one is a reciprocal root."""
RULE = (0.9, 0.999, 1e-8, 1e11)
RATES = [(1e-3, 1e-4)]
TOLERANCE = 1e-5


class Case(NamedTuple):
    """B conformations on the device."""

    name: str
    x: Any  # (B, N, 3)
    motion: Any
    tree: Any
    system: Any

    @property
    def transform_bytes(self) -> float:
        """What transform and transform_backward must move."""
        from pykernels.kernels.tiered import cases

        batch, atoms, _ = self.x.shape
        parameters = sum(each[0].numel() for each in self.motion)
        names = ("transform", "transform_backward")
        return float(sum(cases.min_bytes(name, batch, atoms, parameters, self.x.element_size()) for name in names))

    @property
    def pair_flops(self) -> float:
        pairs = self.system.pairs
        return float(PAIR_FLOPS * len(self.x) * pairs.movable * len(pairs.atoms))


def measure(gpu: bool) -> Iterator[list[Row]]:
    _check(gpu)
    copying, multiplying = copy_rate(gpu), multiply_rate("float32", gpu)
    for B in CONFORMATIONS if gpu else (1,):
        case = _complex(B) if gpu else _small(B, gpu)
        forward, backward, energy, step = _calls(case)

        def transform(forward: Call = forward, backward: Call = backward) -> None:
            forward()
            backward()

        title, speed = f"{case.name}, {B} conformations", f"a product at {multiplying / 1e12:.1f} Tflop/s"
        yield rows(
            "tiered",
            title,
            interleaved({"transform and backward": transform}, gpu),
            {"transform and backward": case.transform_bytes},
            copying,
            f"a copy at {copying / 1e9:.0f} GB/s",
        )
        calls = {"energy and gradient": energy, "whole step": step}
        yield rows("tiered", title, interleaved(calls, gpu), dict.fromkeys(calls, case.pair_flops), multiplying, speed)


def copy_rate(gpu: bool) -> float:
    """Bytes per second, read and written, of a copy of a large array."""
    import torch

    x = torch.ones(1 << (28 if gpu else 12), device="cuda" if gpu else "cpu")
    return 2 * x.nbytes / interleaved({"copy": functools.partial(torch.empty_like(x).copy_, x)}, gpu)["copy"]


def _calls(case: Case) -> tuple[Call, Call, Call, Call]:
    import torch

    from pykernels.kernels.tiered import gpu as launchers
    from pykernels.kernels.tiered.problem import TERMS, Motion, Rule, State

    x, motion, tree = case.x, case.motion, case.tree
    moved, at_moved, at_x = (torch.empty_like(x) for _ in range(3))
    at_motion = Motion(*map(torch.empty_like, motion))
    terms = torch.empty(len(x), len(TERMS), dtype=torch.float64, device=x.device)
    own = [each.clone() for each in (x, *motion)]
    first, second = ([torch.zeros_like(each) for each in own] for _ in range(2))
    state = State(own[0], Motion(*own[1:]), first[0], Motion(*first[1:]), second[0], Motion(*second[1:]))
    constant, history = torch.zeros_like(terms[:, 0]).contiguous(), torch.empty_like(terms[:, 0])[None].contiguous()
    forward = functools.partial(launchers.transform, x, motion, tree, False, moved)
    energy = functools.partial(launchers.energy, moved, case.system, False, terms, at_moved)
    backward = functools.partial(launchers.transform_backward, at_moved, x, motion, tree, False, at_motion, at_x)
    step = functools.partial(
        launchers.descend, state, tree, False, case.system, constant, Rule(*RULE), 0, RATES, history
    )  # fmt: skip
    forward()
    energy()
    return forward, backward, energy, step


def _complex(B: int) -> Case:
    import torch

    from pykernels.kernels.tiered.problem import Motion

    from . import tiered_data as data

    name, arrays = data.system()
    x = torch.from_numpy(data.conformations(arrays, B)).cuda()
    motion = Motion(*(torch.from_numpy(each).cuda() for each in data.moves(arrays, B).values()))
    return Case(name, x, motion, data.tiers(arrays).tree_for(x, "gpu"), data.force_field(arrays).system(x))


def _small(B: int, gpu: bool) -> Case:
    """Twenty atoms; positions in float32."""
    import torch

    from pykernels import tiered
    from pykernels.kernels.tiered import cases, energy_cases

    def convert(value: Any) -> Any:
        if isinstance(value, tuple):
            return type(value)(*map(convert, value))
        tensor = isinstance(value, np.ndarray)
        return torch.tensor(value, device="cuda" if gpu else "cpu") if tensor else value

    tree = tiered.Tiers(**cases.tiers(20, seed=1)).tree
    sizes = len(tree.macro_of_group), len(tree.axis_anchor), len(tree.macro_ptr) - 1
    terms = dict.fromkeys(energy_cases.CLASSES, 5)
    system = energy_cases.system(20, int(20 - tree.fixed.sum()), terms, np.float32)
    parts = cases.positions((B, 20), np.float32), cases.motion(B, *sizes, np.float32, scale=0.1), tree, system
    return Case("20 atoms", *map(convert, parts))


def _check(gpu: bool) -> None:
    """Transform, energy and backward of two conformations of a small system agree with the definition."""
    import torch

    from pykernels.kernels.tiered import gpu as launchers
    from pykernels.kernels.tiered import reference
    from pykernels.kernels.tiered.problem import TERMS, Motion

    case = _small(2, gpu)
    outputs = []
    for launcher in (launchers, reference):
        x, motion, tree, system = case[1:]
        made: Any = torch.empty_like
        table: Any = torch.empty(2, len(TERMS), dtype=torch.float64, device=x.device)
        if launcher is reference:
            x, motion, tree, system, table = (_numpy(each) for each in (x, motion, tree, system, table))
            made = np.empty_like
        moved, gradient, at_x, at_motion = made(x), made(x), made(x), Motion(*map(made, motion))
        launcher.transform(x, motion, tree, True, moved)
        launcher.energy(moved, system, True, table, gradient)
        launcher.transform_backward(gradient, x, motion, tree, True, at_motion, at_x)
        outputs.append([_numpy(each) for each in (moved, table, gradient, at_x, *at_motion)])
    for found, expected in zip(*outputs, strict=True):
        scale = np.abs(expected).max(initial=1e-30)
        if not np.abs(found - expected).max(initial=0) <= TOLERANCE * scale:
            raise ArithmeticError("the gpu backend of tiered disagrees with its definition")


def _numpy(value: Any) -> Any:
    if isinstance(value, tuple):
        return type(value)(*map(_numpy, value))
    return value.cpu().numpy() if hasattr(value, "cpu") else value
