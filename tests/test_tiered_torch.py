"""torch tensors: the bits of NumPy, gradients once, torch.compile."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from conftest import same_bits
from tiered_oracle import random_case

from pykernels import _arrays_torch
from pykernels.tiered import Parameters, transform, transform_backward

torch = pytest.importorskip("torch")
COMPILE = functools.partial(torch.compile, fullgraph=True, backend="aot_eager")


def tensors(params, *arrays, gradient=False):
    made = [torch.from_numpy(each.copy()) for each in (*params, *arrays)]
    if gradient:
        made = [each.requires_grad_() for each in made]
    return Parameters(*made[:5]), *made[5:]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_same_bits_as_numpy(dtype):
    for shared in (True, False):
        tiers, params, positions = random_case("large", 3, dtype, shared)
        expected = transform(params, tiers, positions)
        p, x, g = tensors(params, positions, expected)
        moved = transform(p, tiers, x)
        same_bits(moved.numpy(), expected)
        found, at_positions = transform_backward(g, p, tiers, x)
        of_params, of_positions = transform_backward(expected, params, tiers, positions)
        for ours, theirs in zip((*found, at_positions), (*of_params, of_positions), strict=True):
            same_bits(ours.numpy(), theirs)
        out = torch.full_like(moved, torch.nan)
        assert transform(p, tiers, x, out=out) is out and torch.equal(out, moved)
        wide = torch.stack([x, x], -1)[..., 0]
        assert torch.equal(transform(p, tiers, wide), moved)
        if shared:
            assert torch.equal(transform(p, tiers, x.expand(3, *x.shape)), moved)


@pytest.mark.parametrize("pivot", ["micro", "macro"])
@pytest.mark.parametrize("shared", [True, False])
def test_gradcheck(pivot, shared):
    tiers, params, positions = random_case("every group an axis", 2, shared=shared)
    p, x = tensors(params, positions, gradient=True)
    fixed = torch.zeros(tiers.n_atoms, 1)
    fixed[tiers.fixed_atoms.copy()] = 1
    places = fixed * x.detach()

    def call(*leaves):
        start = places + (1 - fixed) * leaves[5]  # fixed atoms stay and have no gradient
        return transform(Parameters(*leaves[:5]), tiers, start, pivot=pivot)

    assert torch.autograd.gradcheck(call, (*p, x), fast_mode=True)


def test_autograd_is_transform_backward_once():
    tiers, params, positions = random_case("large", 2, np.float32, shared=True)
    p, x = tensors(params, positions, gradient=True)
    moved = transform(p, tiers, x)
    weight = torch.randn_like(moved)
    found = torch.autograd.grad((moved * weight).sum(), (*p, x))
    with torch.no_grad():
        of_params, of_positions = transform_backward(weight, p, tiers, x)
        assert not transform(p, tiers, x).requires_grad
    for ours, theirs in zip(found, (*of_params, of_positions), strict=True):
        assert torch.equal(ours, theirs)
    only = p._replace(**{name: getattr(p, name).detach() for name in Parameters._fields if name != "euler"})
    (at_euler,) = torch.autograd.grad((transform(only, tiers, x.detach()) * weight).sum(), only.euler)
    assert torch.equal(at_euler, of_params.euler)
    twice = torch.autograd.grad(transform(p, tiers, x).square().sum(), p.euler, create_graph=True)[0]
    with pytest.raises(NotImplementedError, match="differentiable once"):
        twice.sum().backward()
    with pytest.raises(ValueError, match="out is read-only"):
        transform(p, tiers, x, out=torch.zeros_like(moved).requires_grad_())


def test_bad_values_are_refused_where_a_gradient_is_wanted():
    tiers, params, positions = random_case("large", 2)
    positions[1, 3] = np.nan
    p, x = tensors(params, positions, gradient=True)
    with pytest.raises(ValueError, match="positions: atom 3 of conformation 1"):
        transform(p, tiers, x)


def test_compiles_without_a_graph_break():
    compiled = COMPILE(transform)
    for name, batch, pivot in (("large", 2, "micro"), ("large", 3, "macro"), ("no axes", 3, "micro")):
        tiers, params, positions = random_case(name, batch, np.float32)
        p, x = tensors(params, positions)
        expected = transform(p, tiers, x, pivot=pivot)
        assert torch.equal(compiled(p, tiers, x, pivot=pivot), expected)
        back = COMPILE(transform_backward)(expected, p, tiers, x, pivot=pivot)
        eager = transform_backward(expected, p, tiers, x, pivot=pivot)
        assert all(torch.equal(a, b) for a, b in zip((*back[0], back[1]), (*eager[0], eager[1]), strict=True))
        p, x = tensors(params, positions, gradient=True)
        both = [
            torch.autograd.grad(f(p, tiers, x, pivot=pivot).square().sum(), p.euler)[0] for f in (compiled, transform)
        ]
        assert torch.equal(*both)


def test_compiled_calls_refuse_what_eager_calls_refuse():
    tiers, params, positions = random_case("large", 2, np.float32)
    p, x = tensors(params, positions)
    with pytest.raises(Exception, match="pivot='mean'"):
        COMPILE(lambda x: transform(p, tiers, x, pivot="mean"))(x)
    with pytest.raises(Exception, match="backend='reference'"):
        COMPILE(lambda x: transform(p, tiers, x, backend="reference"))(x)
    out = torch.empty(2, tiers.n_atoms, 3)
    COMPILE(lambda x, out: transform(p, tiers, x, out=out))(x, out)
    assert torch.equal(out, transform(p, tiers, x))


def test_operators_pass_opcheck():
    _arrays_torch.operators("tiered")
    tiers, params, positions = random_case("every group an axis", 2)
    for gradient in (False, True):
        p, x = tensors(params, positions, gradient=gradient)
        options = (tiers.handle, "macro", None)
        torch.library.opcheck(torch.ops.pykernels.tiered_transform, (*p, x, *options))
        grad = torch.ones(2, tiers.n_atoms, 3, dtype=torch.float64)
        torch.library.opcheck(
            torch.ops.pykernels.tiered_transform_backward,
            (grad, *p, x, *options, False),
            test_utils=("test_schema", "test_faketensor", "test_autograd_registration"),
        )
