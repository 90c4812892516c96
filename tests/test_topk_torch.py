"""torch tensors: the same elements as NumPy, gradients, torch.compile."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from conftest import same_bits

from pykernels import _arrays_torch
from pykernels.kernels.topk import cases
from pykernels.topk import approx_max_k, approx_min_k, topk

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.usefixtures("cheap_bins")
COMPILE = functools.partial(torch.compile, fullgraph=True, backend="aot_eager")


def tensor(x):
    return _arrays_torch.from_numpy(np.ascontiguousarray(x), torch.empty(0))


def same(found, expected):
    for ours, known in zip(found, expected, strict=True):
        assert isinstance(ours, torch.Tensor)
        same_bits(_arrays_torch.to_numpy(ours), np.ascontiguousarray(known))


@pytest.mark.parametrize("dtype", cases.DTYPES)
def test_same_elements_as_numpy(dtype):
    x = cases.rows((6, 300), dtype, "special")
    t = tensor(x)
    for largest in (True, False):
        found = topk(t, 20, largest=largest)
        assert found[0].dtype is t.dtype and found[1].dtype is torch.int64
        same(found, topk(x, 20, largest=largest))
        same(topk(t.T[::2], 5, axis=0, largest=largest), topk(x.T[::2], 5, axis=0, largest=largest))
    if dtype in cases.FLOATS:
        same(approx_max_k(t, 2, recall_target=0.3), approx_max_k(x, 2, recall_target=0.3))


def test_out_and_strides():
    t = torch.randn(3, 40, 50)
    for view in (t, t.transpose(0, 2), t[:, ::2], t.expand(2, 3, 40, 50), t[0, 0]):
        expected = torch.topk(view, 3, dim=0) if view.shape[0] >= 3 else torch.topk(view, 2, dim=0)
        k = expected[0].shape[0]
        assert torch.equal(topk(view, k, axis=0)[0], expected[0])
        out = torch.full(expected[0].shape, torch.nan), torch.full(expected[0].shape, -7)
        assert topk(view, k, axis=0, out=out)[0] is out[0]
        assert torch.equal(out[0], expected[0]) and torch.equal(view.gather(0, out[1]), out[0])
        strided = tuple(each.unsqueeze(-1).repeat_interleave(2, -1)[..., 0] for each in out)
        assert topk(view, k, axis=0, out=strided)[1] is strided[1]
        assert torch.equal(strided[1], out[1])
    with pytest.raises(TypeError, match=r"out\[0\] is a ndarray"):
        topk(t, 3, out=(np.empty((3, 40, 3), np.float32), torch.empty(3, 40, 3, dtype=torch.int64)))
    with pytest.raises(ValueError, match=r"out\[0\] shares memory with the input"):
        topk(t, 3, out=(t[..., :3], torch.empty(3, 40, 3, dtype=torch.int64)))
    with pytest.raises(TypeError, match="x has dtype complex64"):
        topk(t.to(torch.complex64), 3)


SELECTIONS = {
    "topk": lambda x: topk(x, 5),
    "topk axis": lambda x: topk(x, 3, axis=0, largest=False),
    "topk unsorted": lambda x: topk(x, 7, sorted=False),
    "approx_max_k": lambda x: approx_max_k(x, 4, recall_target=0.5),
    "approx_min_k": lambda x: approx_min_k(x.T, 4, reduction_dimension=0, recall_target=0.5),
    "survivors": lambda x: approx_max_k(x, 4, recall_target=0.5, aggregate_to_topk=False),
    "shard": lambda x: approx_max_k(x, 4, recall_target=0.9, reduction_input_size_override=5000),
}


@pytest.mark.parametrize("name", SELECTIONS)
def test_gradient_goes_to_the_selected(name):
    select = SELECTIONS[name]
    x = torch.randn(3, 300, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    values, indices = select(x)
    assert values.requires_grad and not indices.requires_grad
    assert torch.equal(values.detach(), select(x.detach())[0])
    weight = torch.randn_like(values)
    (found,) = torch.autograd.grad((values * weight).sum(), x)
    along = 0 if name == "topk axis" else 1
    reached = indices.T if name == "approx_min_k" else indices
    expected = torch.zeros_like(x).scatter(along, reached, weight.T if name == "approx_min_k" else weight)
    assert torch.equal(found, expected)
    small = (
        torch.randperm(3 * 140, generator=torch.Generator().manual_seed(2)).reshape(3, 140).double().requires_grad_()
    )
    assert torch.autograd.gradcheck(lambda x: select(x)[0].sin(), small, fast_mode=True)
    assert torch.autograd.gradgradcheck(lambda x: select(x)[0].sin(), small, fast_mode=True)
    with torch.no_grad():
        assert not select(x)[0].requires_grad


@pytest.mark.parametrize("name", SELECTIONS)
def test_compiles_without_a_graph_break(name):
    """By the eager backend of torch.compile, which needs no C++ compiler; the graph is the same."""
    select = SELECTIONS[name]
    compiled = COMPILE(select)
    for rows in (16, 24, 32):
        x = torch.randn(rows, 400)
        for found, expected in zip(compiled(x), select(x), strict=True):
            assert torch.equal(found, expected) and found.stride() == expected.stride()
    x = torch.randn(16, 400, requires_grad=True)
    gradients = [torch.autograd.grad(f(x)[0].square().sum(), x)[0] for f in (compiled, select)]
    assert torch.equal(*gradients)


def test_compiled_calls_fill_out_and_refuse_what_eager_calls_refuse():
    x = torch.randn(8, 50)
    out = torch.empty(8, 3), torch.empty(8, 3, dtype=torch.int64)
    COMPILE(lambda x, values, indices: topk(x, 3, out=(values, indices)))(x, *out)
    assert torch.equal(out[0], torch.topk(x, 3)[0]) and torch.equal(x.gather(1, out[1]), out[0])
    with pytest.raises(Exception, match="k=51"):
        COMPILE(lambda x: topk(x, 51))(x)
    with pytest.raises(Exception, match="backend='reference'"):
        COMPILE(lambda x: topk(x, 3, backend="reference"))(x)
    with pytest.raises(Exception, match=r"out\[0\] has shape"):
        COMPILE(lambda x, values, indices: topk(x, 2, out=(values, indices)))(x, *out)


OPERATORS = {
    "topk": (5, 1, True, True, None),
    "topk axis": (2, 0, False, False, None),
    "approx_topk": (4, 1, 300, 0.5, True, True, None),
    "approx_topk survivors": (4, 1, 5000, 0.5, False, True, None),
    "approx_topk exact": (2, 0, 3, 0.5, False, False, None),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_operators_pass_opcheck(name):
    _arrays_torch.operators("topk")
    operator = getattr(torch.ops.pykernels, name.split()[0])
    for x in (torch.randn(3, 300), torch.randn(300, 3).T, torch.randn(3, 300, requires_grad=True)):
        torch.library.opcheck(operator, (x, *OPERATORS[name]))
