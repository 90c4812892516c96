"""Tiers: which points move together, validated once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Any
from weakref import WeakValueDictionary

import numpy as np

from .. import _options
from .._arrays import namespace
from ..kernels.tiered.problem import Tree

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False, repr=False)
class Tiers:
    """Three tiers of motion of N points: single points, groups and macro-groups of groups.

    Parameters
    ----------
    n_atoms : N. Points are called atoms, as in the paper; nothing here knows about molecules.
    group_ptr, group_atoms : (G + 1,) and (n,): group g has the atoms ``group_atoms[group_ptr[g]:group_ptr[g + 1]]``,
        at least one, in any order. An atom is in one group at most.
    macro_of_group : (G,), the macro-group of each group, or -1. There are M = max + 1 of them. None: no macro-groups.
    axis_group, axis_anchor, axis_bonded : (A,) each: axis i turns the group ``axis_group[i]`` about the line from
        the atom ``axis_anchor[i]``, outside the group, to ``axis_bonded[i]``, inside it. A group has one axis at
        most. None: no axes.
    fixed_atoms : the atoms that never move and have no gradient; they are in no group, and all atoms that are in
        no group must be among them. None: there are none. An atom that moves alone is a group of its own.

    All are sequences or arrays (NumPy, torch) of integers of any width; they become read-only int64 arrays of
    NumPy, attributes under the same names. `n_groups`, `n_macros` and `n_axes` are G, M and A. Tiers are
    immutable, may be shared by threads, and can be sent to other processes.

    Raises
    ------
    TypeError for what is not of integers; ValueError, naming the atom, group or axis, for what contradicts the above.

    Examples
    --------
    >>> from pykernels.tiered import Tiers
    >>> Tiers(6, group_ptr=[0, 2, 5], group_atoms=[0, 1, 2, 3, 4], macro_of_group=[0, -1], fixed_atoms=[5])
    Tiers(6 atoms, 2 groups, 1 macro-group, 0 axes, 1 fixed atom)
    >>> Tiers(3, group_ptr=[0, 2], group_atoms=[0, 1])
    Traceback (most recent call last):
    ValueError: atom 2 is in no group: list it in fixed_atoms, or put it into a group, alone if it moves alone
    """

    n_atoms: int
    group_ptr: Any
    group_atoms: Any
    macro_of_group: Any = None
    axis_group: Any = None
    axis_anchor: Any = None
    axis_bonded: Any = None
    fixed_atoms: Any = None
    tree: Tree = field(init=False)  # the kernels' view of it, in NumPy arrays
    handle: int = field(init=False)  # its key in `by_handle`, for torch.compile, whose operators take no objects
    _on_devices: dict[str, Tree] = field(init=False)

    def __post_init__(self) -> None:
        def set_(name: str, value: Any) -> None:
            object.__setattr__(self, name, value)

        set_("n_atoms", _options.integer("n_atoms", self.n_atoms, 0))
        for name in ("group_ptr", "group_atoms"):
            set_(name, _integers(name, getattr(self, name)))
        _check_ptr(self.group_ptr, len(self.group_atoms))
        given = [name for name in _AXES if getattr(self, name) is not None]
        if len(given) not in (0, len(_AXES)):
            raise ValueError(f"{', '.join(given)} without the rest of {', '.join(_AXES)}: expected all of them or none")
        defaults: dict[str, Callable[[], Any]] = dict.fromkeys((*_AXES, "fixed_atoms"), list)
        defaults["macro_of_group"] = lambda: np.full(self.n_groups, -1)
        for name, default in defaults.items():
            value = getattr(self, name)
            set_(name, _integers(name, default() if value is None else value))
        owner = _owners(self)
        _check_macros(self.macro_of_group, self.n_groups)
        _check_axes(self, owner)
        set_("tree", _tree(self, owner))
        set_("_on_devices", {})
        set_("handle", next(_numbers))
        by_handle[self.handle] = self

    @property
    def n_groups(self) -> int:
        return len(self.group_ptr) - 1

    @property
    def n_macros(self) -> int:
        return len(self.tree.macro_ptr) - 1

    @property
    def n_axes(self) -> int:
        return len(self.axis_group)

    def tree_for(self, like: Any, backend: str) -> Any:
        """The `tree` where a backend takes it: for gpu, tensors on the device of `like`, kept for later calls."""
        if backend != "gpu":
            return self.tree
        kept, device = self._on_devices, str(like.device)
        if device not in kept:
            arrays = namespace(like)[1]
            made = Tree(*(arrays.from_numpy(each.copy(), like) for each in self.tree))
            kept.setdefault(device, made)  # atomic: threads may have made it twice, and keep one
        return kept[device]

    def __repr__(self) -> str:
        counts = {
            "atom": self.n_atoms,
            "group": self.n_groups,
            "macro-group": self.n_macros,
            "axis": self.n_axes,
            "fixed atom": len(self.fixed_atoms),
        }
        many = {"axis": "axes"}
        parts = (f"{n} {name if n == 1 else many.get(name, name + 's')}" for name, n in counts.items())
        return f"Tiers({', '.join(parts)})"

    def __reduce__(self) -> tuple[Any, ...]:
        return Tiers, (self.n_atoms, self.group_ptr, self.group_atoms, *(getattr(self, name) for name in _OPTIONAL))


_AXES = ("axis_group", "axis_anchor", "axis_bonded")
_OPTIONAL = ("macro_of_group", *_AXES, "fixed_atoms")
_numbers = count()
by_handle: WeakValueDictionary[int, Tiers] = WeakValueDictionary()


def _integers(name: str, value: Any) -> Array:
    """A read-only int64 copy of a vector of integers of any width."""
    value, arrays = namespace(value)
    numbers = np.asarray(arrays.to_numpy(value))
    if numbers.ndim != 1:
        raise ValueError(f"{name} has shape {numbers.shape}: expected one dimension")
    if numbers.dtype.kind not in "iu" and numbers.size:
        raise TypeError(f"{name} has dtype {numbers.dtype}: expected integers")
    copy = numbers.astype(np.int64)
    copy.flags.writeable = False
    return copy


def _check_ptr(group_ptr: Array, atoms: int) -> None:
    if not len(group_ptr) or group_ptr[0] != 0 or group_ptr[-1] != atoms:
        ends = f"from {group_ptr[0]} to {group_ptr[-1]}" if len(group_ptr) else "over nothing"
        raise ValueError(f"group_ptr goes {ends}: expected from 0 to {atoms}, the length of group_atoms")
    sizes = np.diff(group_ptr)
    if np.any(sizes < 0):
        g = int(np.argmax(sizes < 0))
        raise ValueError(f"group_ptr falls from {group_ptr[g]} to {group_ptr[g + 1]} at group {g}: expected ascending")
    if np.any(sizes == 0):
        raise ValueError(f"group {int(np.argmax(sizes == 0))} is empty: expected at least one atom in every group")


def _check_range(name: str, values: Array, low: int, high: int) -> None:
    outside = (values < low) | (values >= high)
    if np.any(outside):
        raise ValueError(f"{name} contains {values[np.argmax(outside)]}: expected {low} to {high - 1}")


def _first_repeated(values: Array, n: int) -> int | None:
    """The lowest number that is there twice, of numbers from 0 to n - 1."""
    repeated = np.bincount(values, minlength=n) > 1
    return int(np.argmax(repeated)) if np.any(repeated) else None


def _owners(tiers: Tiers) -> Array:
    """The group of each atom (N,), or -1; refuses an atom that is in two places or in none."""
    n, atoms, fixed = tiers.n_atoms, tiers.group_atoms, tiers.fixed_atoms
    _check_range("group_atoms", atoms, 0, n)
    _check_range("fixed_atoms", fixed, 0, n)
    groups = np.repeat(np.arange(tiers.n_groups), np.diff(tiers.group_ptr))
    twice = _first_repeated(atoms, n)
    if twice is not None:
        a, b = groups[atoms == twice][:2]
        where = f"is in group {a} twice" if a == b else f"is in group {a} and in group {b}"
        raise ValueError(f"atom {twice} {where}: expected each atom in one group, once")
    twice = _first_repeated(fixed, n)
    if twice is not None:
        raise ValueError(f"atom {twice} is in fixed_atoms twice: expected once")
    owner = np.full(n, -1)
    owner[atoms] = groups
    both = fixed[owner[fixed] >= 0]
    if both.size:
        raise ValueError(f"atom {both[0]} is in fixed_atoms and in group {owner[both[0]]}: expected one of the two")
    nowhere = owner < 0
    nowhere[fixed] = False
    if np.any(nowhere):
        atom = int(np.argmax(nowhere))
        raise ValueError(
            f"atom {atom} is in no group: list it in fixed_atoms, or put it into a group, alone if it moves alone"
        )
    return owner


def _check_macros(macro_of_group: Array, groups: int) -> None:
    if len(macro_of_group) != groups:
        raise ValueError(f"macro_of_group has length {len(macro_of_group)}: expected {groups}, one for each group")
    _check_range("macro_of_group", macro_of_group, -1, groups)


def _check_axes(tiers: Tiers, owner: Array) -> None:
    group, anchor, bonded = (getattr(tiers, name) for name in _AXES)
    if not len(group) == len(anchor) == len(bonded):
        raise ValueError(f"{', '.join(_AXES)} have lengths {len(group)}, {len(anchor)}, {len(bonded)}: expected one")
    _check_range("axis_group", group, 0, tiers.n_groups)
    _check_range("axis_anchor", anchor, 0, tiers.n_atoms)
    _check_range("axis_bonded", bonded, 0, tiers.n_atoms)
    twice = _first_repeated(group, tiers.n_groups)
    if twice is not None:
        a, b = np.flatnonzero(group == twice)[:2]
        raise ValueError(f"axis_group: axes {a} and {b} both turn group {twice}: expected one axis at most")
    outside = owner[bonded] != group
    if np.any(outside):
        i = int(np.argmax(outside))
        where = f"group {owner[bonded[i]]}" if owner[bonded[i]] >= 0 else "fixed_atoms"
        raise ValueError(f"axis_bonded: atom {bonded[i]} of axis {i} is in {where}: expected in group {group[i]}")
    inside = owner[anchor] == group
    if np.any(inside):
        i = int(np.argmax(inside))
        raise ValueError(
            f"axis_anchor: atom {anchor[i]} of axis {i} is in group {group[i]}, which turns: expected outside it"
        )


def _tree(tiers: Tiers, owner: Array) -> Tree:
    macro = tiers.macro_of_group
    by_macro = np.argsort(macro, kind="stable")
    by_macro = by_macro[macro[by_macro] >= 0]
    macro_ptr = np.searchsorted(macro[by_macro], np.arange(macro.max(initial=-1) + 2))
    axis_of_group = np.full(tiers.n_groups, -1)
    axis_of_group[tiers.axis_group] = np.arange(len(tiers.axis_group))
    loose = owner < 0
    tree = Tree(
        group_ptr=tiers.group_ptr,
        group_atoms=tiers.group_atoms,
        macro_of_group=macro,
        macro_ptr=macro_ptr,
        macro_groups=by_macro,
        axis_of_group=axis_of_group,
        axis_anchor=tiers.axis_anchor,
        axis_bonded=tiers.axis_bonded,
        loose=np.flatnonzero(loose),
        fixed=loose.astype(np.uint8),
    )
    for each in tree:
        each.flags.writeable = False
    return tree
