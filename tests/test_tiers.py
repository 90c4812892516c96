"""Tiers and Parameters: what they accept, hold and refuse."""

from __future__ import annotations

import copy
import re
import threading

import numpy as np
import pytest
from conftest import HAS_TORCH

from pykernels.kernels.tiered import cases
from pykernels.tiered import Parameters, Tiers

ARRAYS = ("group_ptr", "group_atoms", "macro_of_group", "axis_group", "axis_anchor", "axis_bonded", "fixed_atoms")
GOOD = {
    "n_atoms": 7,
    "group_ptr": [0, 2, 5],
    "group_atoms": [4, 1, 0, 3, 6],
    "macro_of_group": [-1, 0],
    "axis_group": [1],
    "axis_anchor": [5],
    "axis_bonded": [3],
    "fixed_atoms": [5, 2],
}


@pytest.mark.parametrize("name", ["list", "tuple", "i1", ">i4", "i8", "u1", "u8"])
def test_attributes_are_read_only_copies_of_any_integers(name):
    macros = [1, 0] if name.startswith("u") else [-1, 0]
    given = {**GOOD, "macro_of_group": macros}
    for key in ARRAYS:
        given[key] = {"list": list, "tuple": tuple}.get(name, lambda v: np.array(v, name))(given[key])
    tiers = Tiers(**given)
    assert (tiers.n_atoms, tiers.n_groups, tiers.n_axes) == (7, 2, 1)
    for key in ARRAYS:
        value = getattr(tiers, key)
        assert value.dtype == np.int64 and value.flags.c_contiguous and not value.flags.writeable
        np.testing.assert_array_equal(value, given[key])
    assert all(not each.flags.writeable for each in tiers.tree)


def test_tiers_keep_nothing_of_the_caller_and_do_not_change():
    source = np.array(GOOD["group_atoms"])
    tiers = Tiers(**{**GOOD, "group_atoms": source})
    source[:] = 0
    assert tiers.group_atoms.tolist() == GOOD["group_atoms"]
    with pytest.raises(AttributeError):
        tiers.n_atoms = 8


def test_the_tree():
    macros = [2, -1, 0, 2]
    tiers = Tiers(6, [0, 1, 2, 3, 4], [5, 1, 0, 3], macros, [2, 0], [4, 4], [0, 5], fixed_atoms=[4, 2])
    tree = tiers.tree
    assert (tiers.n_macros, tiers.n_axes) == (3, 2)
    assert tree.macro_ptr.tolist() == [0, 1, 1, 3] and tree.macro_groups.tolist() == [2, 0, 3]
    assert tree.axis_of_group.tolist() == [1, -1, 0, -1]
    assert tree.loose.tolist() == [2, 4] and tree.fixed.tolist() == [0, 0, 1, 0, 1, 0] and tree.fixed.dtype == np.uint8
    assert all(each.dtype == np.int64 for name, each in tree._asdict().items() if name != "fixed")


def test_what_is_left_out_is_empty():
    tiers = Tiers(2, [0, 2], [1, 0])
    assert tiers.macro_of_group.tolist() == [-1] and tiers.n_macros == tiers.n_axes == 0
    assert all(len(getattr(tiers, name)) == 0 for name in ARRAYS[3:])
    assert Tiers(0, [0], []).n_groups == 0
    assert repr(Tiers(**GOOD)) == "Tiers(7 atoms, 2 groups, 1 macro-group, 1 axis, 2 fixed atoms)"


def test_tiers_are_copied_whole():
    tiers = Tiers(**GOOD)
    tiers.tree_for(np.zeros(1), "cpu")
    other = copy.deepcopy(tiers)  # by `__reduce__`, as they are sent to another process
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(other, name), getattr(tiers, name))
    assert other.handle != tiers.handle


@pytest.mark.skipif(not HAS_TORCH, reason="torch is not installed")
def test_the_tree_of_a_device_is_made_once():
    import torch

    tiers, like, found = Tiers(**GOOD), torch.zeros(1), []
    threads = [threading.Thread(target=lambda: found.append(tiers.tree_for(like, "gpu"))) for _ in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len({id(each) for each in found}) == 1
    for ours, theirs in zip(found[0], tiers.tree, strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs)
    assert Tiers(7, *(torch.tensor(GOOD[name], dtype=torch.int32) for name in ARRAYS)).n_axes == 1


BAD = {
    "n_atoms": (TypeError, "n_atoms=7.0: expected an integer", {"n_atoms": 7.0}),
    "n_atoms negative": (ValueError, "n_atoms=-1", {"n_atoms": -1}),
    "floats": (TypeError, "group_atoms has dtype float64: expected integers", {"group_atoms": np.ones(5)}),
    "flags": (TypeError, "fixed_atoms has dtype bool", {"fixed_atoms": [True, False]}),
    "dimensions": (ValueError, "axis_group has shape (1, 1): expected one dimension", {"axis_group": [[1]]}),
    "no groups": (ValueError, "group_ptr goes over nothing: expected from 0 to 5", {"group_ptr": []}),
    "start": (ValueError, "group_ptr goes from 1 to 5", {"group_ptr": [1, 2, 5]}),
    "end": (ValueError, "group_ptr goes from 0 to 4: expected from 0 to 5", {"group_ptr": [0, 2, 4]}),
    "falls": (ValueError, "group_ptr falls from 6 to 5 at group 1", {"group_ptr": [0, 6, 5]}),
    "empty": (ValueError, "group 1 is empty", {"group_ptr": [0, 2, 2, 5]}),
    "high": (ValueError, "group_atoms contains 7: expected 0 to 6", {"group_atoms": [4, 1, 0, 3, 7]}),
    "low": (ValueError, "group_atoms contains -1", {"group_atoms": [4, 1, 0, 3, -1]}),
    "two groups": (ValueError, "atom 1 is in group 0 and in group 1", {"group_atoms": [4, 1, 1, 3, 6]}),
    "twice": (ValueError, "atom 3 is in group 1 twice", {"group_atoms": [4, 1, 3, 3, 6]}),
    "none": (ValueError, "atom 2 is in no group: list it in fixed_atoms", {"fixed_atoms": [5]}),
    "nothing fixed": (ValueError, "atom 2 is in no group", {"fixed_atoms": None}),
    "fixed and moving": (ValueError, "atom 3 is in fixed_atoms and in group 1", {"fixed_atoms": [5, 2, 3]}),
    "fixed twice": (ValueError, "atom 2 is in fixed_atoms twice", {"fixed_atoms": [2, 5, 2]}),
    "fixed high": (ValueError, "fixed_atoms contains 9: expected 0 to 6", {"fixed_atoms": [5, 2, 9]}),
    "macros": (ValueError, "macro_of_group has length 1: expected 2", {"macro_of_group": [0]}),
    "macro low": (ValueError, "macro_of_group contains -2: expected -1 to 1", {"macro_of_group": [0, -2]}),
    "macro high": (ValueError, "macro_of_group contains 2", {"macro_of_group": [0, 2]}),
    "axes in part": (ValueError, "axis_group, axis_bonded without the rest", {"axis_anchor": None}),
    "axis lengths": (ValueError, "have lengths 1, 2, 1: expected one", {"axis_anchor": [5, 2]}),
    "axis group": (ValueError, "axis_group contains 2: expected 0 to 1", {"axis_group": [2]}),
    "axis anchor": (ValueError, "axis_anchor contains -1", {"axis_anchor": [-1]}),
    "axis bonded": (ValueError, "axis_bonded contains 7", {"axis_bonded": [7]}),
    "two axes": (
        ValueError,
        "axis_group: axes 0 and 1 both turn group 1",
        {"axis_group": [1, 1], "axis_anchor": [5, 2], "axis_bonded": [3, 0]},
    ),
    "bonded outside": (ValueError, "axis_bonded: atom 4 of axis 0 is in group 0", {"axis_bonded": [4]}),
    "bonded fixed": (ValueError, "atom 2 of axis 0 is in fixed_atoms: expected in group 1", {"axis_bonded": [2]}),
    "anchor inside": (ValueError, "axis_anchor: atom 0 of axis 0 is in group 1", {"axis_anchor": [0]}),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_tiers(name):
    error, text, changed = BAD[name]
    with pytest.raises(error, match=re.escape(text)) as raised:
        Tiers(**{**GOOD, **changed})
    assert raised.type is error


def test_zeros():
    tiers = Tiers(**cases.tiers(100, macros=1.0))
    params = Parameters.zeros(tiers, 3)
    g, m = tiers.n_groups, tiers.n_macros
    assert [each.shape for each in params] == [(3, g, 3), (3, g, 3), (3, tiers.n_axes), (3, m, 3), (3, m, 3)]
    assert all(each.dtype == np.float32 and not each.any() for each in params)
    assert Parameters.zeros(tiers, 0, np.float64).axis.dtype == np.float64
    assert Parameters.zeros(tiers, 1, like=np.zeros(1)).axis.dtype == np.float64
    for dtype in (np.float16, "bfloat16", int):
        with pytest.raises(TypeError, match="dtype="):
            Parameters.zeros(tiers, 1, dtype)
    with pytest.raises(ValueError, match="B=-1"):
        Parameters.zeros(tiers, -1)
    if HAS_TORCH:
        import torch

        like = torch.zeros(2, dtype=torch.float64)
        assert {each.dtype for each in Parameters.zeros(tiers, 2, like=like)} == {torch.float64}
        assert {each.dtype for each in Parameters.zeros(tiers, 2, np.float32, like)} == {torch.float32}
        assert {each.dtype for each in Parameters.zeros(tiers, 2, torch.float64, torch.zeros(1, dtype=torch.int8))} == {
            torch.float64
        }
