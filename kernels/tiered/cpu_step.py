"""Steps of the tiered descent: transform, energy, gradient and Adam, compiled together."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._numba import in_turn, jit
from .cpu_adam import coefficients, step_kernel
from .cpu_backward import _backward
from .cpu_energy import energy_kernel, scratch_for
from .cpu_transform import _transform, tasks_for
from .problem import TERMS, Motion, Rule, State, System, Tree

Array = np.ndarray[Any, Any]

_step_all = step_kernel.parallel


def descend(
    state: State,
    tree: Tree,
    macro_pivot: bool,
    system: System,
    constant: Array,
    rule: Rule,
    taken: int,
    rates: Array,
    history: Array,
) -> None:
    """Take a step for each row of `rates` (steps, 2): that of points, groups and axes, and that of macro-groups.

    `history` (steps, B) receives the energies before each, `constant` (B,) included; `taken` steps were
    taken before.
    """
    x = state.positions
    at_motion = Motion(*(np.empty_like(each) for each in state.motion))
    scratch, cells = scratch_for(len(x), x.shape[1], system, x.dtype)
    memory = (np.empty_like(x), np.empty_like(x), np.empty_like(x), np.empty((len(x), len(TERMS))))
    everywhere = False  # passed, as a literal would have the energy compiled once more
    options = (macro_pivot, everywhere, constant, rule, taken, rates, history, tasks_for(x))
    in_turn(_descend, *state, tree, *system, scratch, cells, at_motion, *memory, *options)


@jit
def _descend(
    x,
    motion,
    first,
    first_motion,
    second,
    second_motion,
    tree,
    bonded,
    pairs,
    vina,
    mmff,
    scratch,
    cells,
    at_motion,
    moved,
    at_moved,
    at_x,
    terms,
    macro_pivot,
    everywhere,
    constant,
    rule,
    taken,
    rates,
    history,
    tasks,
):
    for number in range(len(rates)):
        _transform(x, motion, tree, macro_pivot, moved, tasks)
        energy_kernel(moved, bonded, pairs, vina, mmff, everywhere, scratch, cells, terms, at_moved)
        for b in range(len(x)):
            history[number, b] = constant[b]
            for term in range(terms.shape[1]):
                history[number, b] += terms[b, term]
        _backward(at_moved, x, motion, tree, macro_pivot, at_motion, at_x, tasks)
        step = taken + number + 1
        fine = coefficients(rates[number, 0], step, rule.beta1, rule.beta2, rule.epsilon, rule.clip)
        coarse = coefficients(rates[number, 1], step, rule.beta1, rule.beta2, rule.epsilon, rule.clip)
        _step_all(x, motion, at_x, at_motion, first, first_motion, second, second_motion, fine, coarse)
