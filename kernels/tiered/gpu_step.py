"""Steps of the tiered descent on the device: nothing waits for the host between them."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from .._triton import on_device_of
from .gpu_adam import adam
from .gpu_energy import energy
from .gpu_transform import transform, transform_backward
from .problem import TERMS, Motion, Rule, State, System, Tree

CONFORMATIONS = 128


@triton.jit
def _totals_kernel(terms_ptr, constant_ptr, out_ptr, B, TERMS: tl.constexpr, BLOCK: tl.constexpr):
    b = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = b < B
    total = tl.load(constant_ptr + b, mask=inside, other=0.0)
    for term in tl.static_range(TERMS):
        total += tl.load(terms_ptr + b * TERMS + term, mask=inside, other=0.0)
    tl.store(out_ptr + b, total, mask=inside)


def descend(
    state: State,
    tree: Tree,
    macro_pivot: bool,
    system: System,
    constant: torch.Tensor,
    rule: Rule,
    taken: int,
    rates: list[tuple[float, float]],
    history: torch.Tensor,
) -> None:
    """Take a step for each of `rates`: that of points, groups and axes, and that of macro-groups.

    `history` (steps, B), float64, receives the energies before each, `constant` (B,) included; `taken`
    steps were taken before. `state` is updated. About 25 launches a step.
    """
    x, B = state.positions, len(state.positions)
    if B == 0:
        return
    moved, at_moved, at_x = (torch.empty_like(x) for _ in range(3))
    at_motion = Motion(*map(torch.empty_like, state.motion))
    terms = x.new_empty((B, len(TERMS)), dtype=torch.float64)
    parts = list(
        zip(
            (x, *state.motion),
            (at_x, *at_motion),
            (state.first, *state.first_motion),
            (state.second, *state.second_motion),
            strict=True,
        )
    )
    with on_device_of(x):
        for number, (rate, macro_rate) in enumerate(rates):
            transform(x, state.motion, tree, macro_pivot, moved)
            energy(moved, system, False, terms, at_moved)
            _totals_kernel[(triton.cdiv(B, CONFORMATIONS),)](
                terms, constant, history[number], B, TERMS=len(TERMS), BLOCK=CONFORMATIONS, num_warps=4
            )
            transform_backward(at_moved, x, state.motion, tree, macro_pivot, at_motion, at_x)
            for place, part in enumerate(parts):
                adam(*part, float(macro_rate if place >= 4 else rate), taken + number + 1, *rule)
