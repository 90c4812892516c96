"""Attention of tensors: gradients against autograd of the plain formula, and torch.compile."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

pytest.importorskip("torch")
import torch
from attention_oracle import plain, tensor
from test_house import run

from pykernels.attention import attention, attention_varlen
from pykernels.kernels.attention import cases
from pykernels.kernels.attention.cases import Shape

SHAPES = (Shape(2, 6, 2, 9, 33, 40, 24), Shape(2, 8, 1, 33, 9, 16, 16))
OPTIONS = (
    {},
    {"causal": True, "window": (12, 0), "softcap": 2.0},
    {"bias": (-3, -1), "mask": (0, -1), "sinks": True},
    {"bias": (-2,), "kv_lengths": True, "causal": True, "alibi_slopes": True},
    {"bias": (0, -3, -2, -1), "sinks": True, "causal": "upper_left", "scale": 0.5},
)


def leaves(shape, features, dtype):
    """Tensors that want a gradient, and what else there is to say."""
    given = {
        name: tensor(x) if isinstance(x, np.ndarray) else x for name, x in cases.arguments(shape, features).items()
    }
    operands = dict(zip("qkv", map(tensor, cases.operands(shape, dtype)), strict=True))
    operands |= {name: given.pop(name) for name in ("bias", "sinks") if name in given}
    if dtype == "float64":
        operands = {name: x.double() for name, x in operands.items()}
    return {name: x.requires_grad_() for name, x in operands.items()}, given


def gradients(call, operands, weights):
    out, lse = call(**operands)
    kept = torch.where(torch.isfinite(lse), lse, 0)
    loss = (out.double() * weights[0]).sum() + (kept.double() * weights[1]).sum()
    return torch.autograd.grad(loss, operands.values())


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
@pytest.mark.parametrize("features", OPTIONS, ids=cases.named)
def test_gradients_through_out_and_lse(features, dtype):
    for shape in SHAPES:
        operands, given = leaves(shape, features, dtype)
        generator = torch.Generator().manual_seed(1)
        sizes = (shape.batch, shape.heads, shape.queries, shape.value_dim)
        weights = [torch.randn(size, generator=generator, dtype=torch.float64) for size in (sizes, sizes[:3])]
        wide = {name: x.detach().double().requires_grad_() for name, x in operands.items()}
        exact = gradients(partial(plain, **given), wide, weights)
        ours = gradients(partial(attention, **given, return_lse=True), operands, weights)
        if dtype in ("bfloat16", "float16"):
            theirs = gradients(partial(plain, **given), operands, weights)
        for i, (name, x) in enumerate(operands.items()):
            assert ours[i].dtype == x.dtype and ours[i].shape == x.shape
            size = max(1, float(exact[i].abs().max()))
            error = float((ours[i].double() - exact[i]).abs().max())
            if dtype in ("float32", "float64"):
                assert error <= 64 * torch.finfo(x.dtype).eps * size, name
            else:
                rounding = torch.finfo(getattr(torch, dtype)).eps * size
                assert error <= 2 * float((theirs[i].double() - exact[i]).abs().max()) + rounding, name


def test_gradients_by_finite_differences():
    operands, given = leaves(Shape(1, 2, 1, 3, 5, 2, 3), OPTIONS[2], "float64")
    names = list(operands)
    given["softcap"] = 2.0
    given["mask"] = torch.tensor([True, True, False, True, True])

    def call(*tensors):
        return attention(**dict(zip(names, tensors, strict=True)), **given, return_lse=True)

    assert torch.autograd.gradcheck(call, tuple(operands.values()))


def test_gradients_of_ragged_batches_are_those_of_their_sequences():
    generator = torch.Generator().manual_seed(0)
    q, k, v = (
        torch.randn(size, generator=generator).requires_grad_() for size in ((12, 4, 16), (20, 2, 16), (20, 2, 8))
    )
    queries, keys = torch.tensor([0, 5, 5, 12]), torch.tensor([0, 9, 12, 20], dtype=torch.int32)
    weight = torch.randn(12, 4, 8, generator=generator)
    out, lse = attention_varlen(q, k, v, queries, keys, causal=True, return_lse=True)
    ours = torch.autograd.grad((out * weight).sum() + lse.sum(), (q, k, v))
    total = 0
    for n in (0, 2):
        mine, theirs = slice(*queries[n : n + 2]), slice(*keys[n : n + 2])
        alone, log = attention(
            *(x.transpose(0, 1)[None] for x in (q[mine], k[theirs], v[theirs])), causal=True, return_lse=True
        )
        total = total + (alone[0].transpose(0, 1) * weight[mine]).sum() + log.sum()
    for got, expected in zip(ours, torch.autograd.grad(total, (q, k, v)), strict=True):
        torch.testing.assert_close(got, expected)


def test_gradients_of_some_and_of_nothing():
    operands, _ = leaves(SHAPES[0], {}, "float32")
    q, k, v = operands.values()
    whole = torch.autograd.grad(attention(q, k, v, return_lse=True)[1].sum(), (q, k))
    one = torch.autograd.grad(attention(q, k.detach(), v.detach(), return_lse=True)[1].sum(), q)
    assert torch.equal(whole[0], one[0])
    with torch.no_grad():
        assert not attention(q, k, v).requires_grad
    for cut, zero in (
        (lambda q, k, v: (q[:, :, :0], k, v), (1, 2)),
        (lambda q, k, v: (q, k[:, :, :0], v[:, :, :0]), (0,)),
    ):
        found = torch.autograd.grad(attention(*cut(q, k, v)).sum(), (q, k, v), allow_unused=True)
        assert not any(found[i].any() for i in zero)


def test_tensors_keep_their_layout_and_numpy_its_bits():
    operands = cases.operands(SHAPES[0], "bfloat16")
    expected = attention(*operands, causal=True)
    for first in (False, True):
        q, k, v = (tensor(x).transpose(1, 2).contiguous().transpose(1, 2) if first else tensor(x) for x in operands)
        out = attention(q, k, v, causal=True)
        assert (out.transpose(1, 2) if first else out).is_contiguous()
        assert torch.equal(out, tensor(expected))
        target = torch.full((*out.shape[:3], 2 * out.shape[3]), torch.nan, dtype=out.dtype)[..., ::2]
        assert attention(q, k, v, causal=True, out=target) is target and torch.equal(target, out)


def loss(q, k, v, bias, sinks, lengths):
    out, lse = attention(
        q * 2, k, v, causal=True, window=(20, 0), bias=bias, sinks=sinks, kv_lengths=lengths, return_lse=True
    )
    return out.square().sum() + lse.sin().sum()


def test_compiles_without_a_graph_break_and_has_its_gradient():
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    for queries, keys in ((5, 7), (6, 9), (1, 9)):
        operands, _ = leaves(Shape(2, 4, 2, queries, keys, 8, 4), {"bias": (-3, -1), "sinks": True}, "float32")
        lengths = torch.tensor([keys, keys - 1], dtype=torch.int32)
        results = []
        for call in (loss, compiled):
            value = call(*operands.values(), lengths)
            results.append((value, *torch.autograd.grad(value, operands.values())))
        assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    ragged = torch.compile(attention_varlen, fullgraph=True, backend="aot_eager", dynamic=True)
    q, k = torch.randn(10, 4, 8), torch.randn(12, 2, 8)
    ends = torch.tensor([0, 3, 10]), torch.tensor([0, 4, 12])
    assert torch.equal(ragged(q, k, k, *ends, causal=True), attention_varlen(q, k, k, *ends, causal=True))
    with pytest.raises(ValueError, match="cu_seqlens_q"):
        ragged(q, k, k, ends[1], ends[1], causal=True)


def test_operators_pass_opcheck():
    from pykernels.attention import _torch

    operands, _ = leaves(Shape(2, 4, 2, 3, 5, 8, 4), {"bias": (-3, -1), "sinks": True}, "float32")
    q, k, v, bias, sinks = operands.values()
    problem = (
        0.5,
        0.0,
        2,
        0,
        False,
        None,
        bias,
        torch.ones(1, 1, 1, 5, dtype=torch.bool),
        sinks,
        None,
        None,
        None,
        None,
    )
    torch.library.opcheck(_torch._attention_op, (q, k, v, *problem))
    out, lse = _torch._attention_op(q, k, v, *problem)
    saved = [x.detach() for x in (out, lse, q, k, v, out, lse)]
    constant = [x.detach() if isinstance(x, torch.Tensor) else x for x in problem]
    torch.library.opcheck(_torch._backward_op, (*saved, True, True, *constant))


def test_the_first_call_may_be_compiled_and_numpy_never_imports_torch():
    code = """
        import torch
        from pykernels.attention import attention
        compiled = torch.compile(lambda x: attention(x, x, x), fullgraph=True, backend="aot_eager")
        x = torch.ones(1, 2, 3, 16)
        print(torch.equal(compiled(x), attention(x, x, x)))
    """
    assert run(code) == "True"
    code = """
        import sys, numpy
        from pykernels.attention import attention, merge
        x = numpy.ones((1, 1, 2, 16), numpy.float32)
        part = attention(x, x, x, return_lse=True)
        merge(*part, *part)
        print([name for name in ("torch", "triton", "transformers") if name in sys.modules])
    """
    assert run(code) == "[]"
