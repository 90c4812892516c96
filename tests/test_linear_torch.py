"""Products of tensors with quantized weights: gradients against autograd of the plain formula, and torch.compile."""

from __future__ import annotations

import copy
from functools import partial

import numpy as np
import pytest

pytest.importorskip("torch")
import torch
from test_house import run
from torch.nn import functional

from pykernels._arrays_torch import to_numpy
from pykernels.kernels.linear import cases
from pykernels.kernels.linear.cases import Shape
from pykernels.quant import QuantizedTensor, linear, quantize

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
ACTIVATIONS = {
    None: lambda z: z,
    "relu": functional.relu,
    "silu": functional.silu,
    "gelu": functional.gelu,
    "gelu_tanh": partial(functional.gelu, approximate="tanh"),
}
COMPILE = partial(torch.compile, fullgraph=True, backend="aot_eager")
SHAPE = Shape(5, 33, 70)


def made(format="int8", granularity="row", shape=SHAPE, dtype=torch.float32):
    """x, a weight and a bias, drawn from normal numbers."""
    generator = torch.Generator().manual_seed(0)
    x, full, bias = (torch.randn(size, generator=generator) for size in ((shape.m, shape.k), shape[1:], shape.n))
    return x.to(dtype), quantize(full / shape.k**0.5, format, granularity=granularity), bias


def plain(x, weight, bias, activation=None):
    """The formula in x's dtype, by torch."""
    wide = weight.dequantize(x.dtype) if isinstance(weight, QuantizedTensor) else weight
    return ACTIVATIONS[activation](functional.linear(x, wide, bias.to(x.dtype)))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_tensors_give_the_bits_of_arrays(dtype):
    for format, granularity in (("int8", "row"), ("e4m3fn", "mx"), ("e5m2", "tensor")):
        x, weight, bias = made(format, granularity, dtype=dtype)
        arrays = QuantizedTensor(to_numpy(weight.codes), to_numpy(weight.scale), granularity)
        name = str(dtype).removeprefix("torch.")
        wide = x.float().numpy().astype(cases.FLOATS[name])
        for bias_ in (None, bias, bias.to(dtype)):
            added = None if bias_ is None else bias_.float().numpy()
            got = linear(x, weight, bias_, activation="silu")
            assert got.dtype is dtype
            np.testing.assert_array_equal(
                got.float().numpy(), linear(wide, arrays, added, activation="silu").astype(np.float32)
            )
        out = torch.full((5, 66), torch.nan, dtype=torch.float32)[:, ::2]
        assert linear(x.view(5, 1, 70), weight, out_dtype=torch.float32, out=out[:, None]).shape == (5, 1, 33)
        np.testing.assert_array_equal(out.numpy(), linear(wide, arrays, out_dtype="float32"))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gradients(activation, dtype):
    for format, granularity, asked in (("int8", "row", None), ("e4m3fn", (16, 32), None), ("int8", "tensor", "int8")):
        x, weight, bias = made(format, granularity, dtype=dtype)
        x = x.requires_grad_()
        bias = bias.requires_grad_()
        exact = [each.detach().double().requires_grad_() for each in (x, bias)]
        used = exact[0]
        if asked:  # the gradient passes straight through the rounding of x
            used = used + (quantize(x.detach(), asked, granularity="row").dequantize().double() - used).detach()
        slope = torch.linspace(-1, 1, 5 * 33).view(5, 33)

        def grads(y, inputs, slope=slope):
            return torch.autograd.grad((y.double() * slope).sum(), inputs)

        expected = grads(plain(used, weight, exact[1], activation), exact)
        theirs = grads(plain(x, weight, bias, activation), (x, bias))
        ours = grads(linear(x, weight, bias, activation=activation, input_format=asked), (x, bias))
        for got, want, peer in zip(ours, expected, theirs, strict=True):
            assert got.dtype == peer.dtype and got.shape == want.shape
            error = (got.double() - want).abs().max()
            size = want.abs().max()
            if dtype is torch.float32:
                assert error <= 32 * 2**-24 * 33**0.5 * size
            else:
                assert error <= 2 * (peer.double() - want).abs().max() + torch.finfo(dtype).eps * size


def test_gradients_by_finite_differences():
    x, weight, bias = made("e4m3fn", shape=Shape(2, 5, 7))
    slope = torch.randn(2, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for activation in ("silu", "gelu", "gelu_tanh"):

        def loss(x, bias, activation=activation):
            y = linear(x, weight, bias, activation=activation, backend="reference")
            return (y.double() * slope).sum()

        gradients = torch.autograd.grad(loss(x.requires_grad_(), bias.requires_grad_()), (x, bias))
        with torch.no_grad():
            for i, (leaf, gradient) in enumerate(zip((x, bias), gradients, strict=True)):
                for place in range(leaf.numel()):
                    ends = []
                    for step in (-1e-2, 1e-2):
                        moved = [x.clone(), bias.clone()]
                        moved[i].view(-1)[place] += step
                        ends.append(loss(*moved))
                    assert abs((ends[1] - ends[0]) / 2e-2 - gradient.view(-1)[place]) < 2e-4


def test_gradient_of_a_weight_in_full_width_and_of_nothing():
    x, _, bias = made()
    full = torch.randn(33, 70, requires_grad=True)
    x3 = x.view(5, 1, 70).requires_grad_()
    ours = torch.autograd.grad(linear(x3, full, bias, activation="gelu").square().sum(), (x3, full))
    theirs = torch.autograd.grad(plain(x3, full, bias, "gelu").square().sum(), (x3, full))
    for got, want in zip(ours, theirs, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5 * float(want.abs().max()))
    with torch.no_grad():
        assert not linear(x3, full).requires_grad
    for shape in (Shape(0, 3, 4), Shape(2, 0, 4), Shape(2, 3, 0)):
        x, weight, bias = made(shape=shape)
        y = linear(x.requires_grad_(), weight, bias.requires_grad_(), activation="relu")
        gradient, of_bias = torch.autograd.grad(y.sum(), (x, bias))
        assert gradient.shape == x.shape and not gradient.any()
        assert torch.equal(of_bias, shape.m * (bias > 0)) or shape.k


def test_weights_that_are_written_to_are_noticed():
    """Those too whose scales are converted for the launchers, or whose memory moves."""
    for format, granularity in (("int8", "row"), ("e4m3fn", "mx")):
        x, weight, _ = made(format, granularity)
        before = linear(x, weight)
        for part, other in (("codes", weight.codes.flip(0)), ("scale", weight.scale.flip(0).clone())):
            getattr(weight, part).copy_(other)
            fresh = QuantizedTensor(weight.codes.clone(), weight.scale.clone(), granularity)
            assert torch.equal(linear(x, weight), linear(x, fresh))
        assert not torch.equal(linear(x, weight), before)
        weight.codes.data = weight.codes[:, torch.arange(69, -1, -1)]
        fresh = QuantizedTensor(weight.codes.clone(), weight.scale.clone(), granularity)
        assert torch.equal(linear(x, weight), linear(x, fresh))
        assert torch.equal(linear(x, copy.deepcopy(weight)), linear(x, fresh))


@pytest.mark.parametrize("granularity", ["row", "mx", (16, 32)])
def test_compiles_without_a_graph_break_and_has_its_gradient(granularity):
    x, weight, bias = made("e4m3fn", granularity)

    def loss(x, bias):
        y = linear(x * 2, weight, bias, activation="silu")
        return y.square().sum() + linear(x, weight, input_format="e4m3fn", out_dtype=torch.float32).sum()

    compiled = COMPILE(loss)
    for rows in (5, 7, 1):
        x = torch.randn(rows, 70).requires_grad_()
        bias = bias.detach().requires_grad_()
        results = []
        for call in (loss, compiled):
            value = call(x, bias)
            results.append((value, *torch.autograd.grad(value, (x, bias))))
        for ours, want in zip(*results, strict=True):
            torch.testing.assert_close(ours, want, rtol=1e-5, atol=1e-5)
    out = torch.empty(5, 33)
    COMPILE(lambda x, out: linear(x, weight, out=out))(x.detach().expand(5, 70), out)
    assert torch.equal(out[0], linear(x.detach()[0], weight))


def test_compiled_products_of_made_weights_and_of_full_ones():
    def both(x, full):
        weight = quantize(full, "int8", granularity="row")
        return linear(x, weight, activation="relu") + linear(x, full, activation="relu")

    x, full = torch.randn(3, 70), torch.randn(33, 70)
    assert torch.equal(COMPILE(both)(x, full), both(x, full))
    with pytest.raises(Exception, match="backend='reference'"):
        COMPILE(lambda x: linear(x, full, backend="reference"))(x)
    with pytest.raises(Exception, match="out_dtype='int8'"):
        COMPILE(lambda x: linear(x, full, out_dtype="int8"))(x)


def test_operator_passes_opcheck():
    from pykernels.quant import _linear_torch

    x, weight, bias = made("int8")
    options = ("row", -1, "gelu", None, None, None)
    operator = _linear_torch._linear_op
    torch.library.opcheck(operator, (x, weight.codes, weight.scale, None, *options))
    torch.library.opcheck(operator, (x.requires_grad_(), weight.codes, weight.scale, bias.requires_grad_(), *options))
    full = torch.randn(33, 70, requires_grad=True)
    torch.library.opcheck(operator, (x.detach()[None], full, None, bias, "", 0, None, None, "float32", None))


def test_the_first_call_may_be_compiled_and_numpy_never_imports_torch():
    code = """
        import torch
        from pykernels import quant
        weight = quant.quantize(torch.ones(3, 16), "int8", granularity="row")
        compiled = torch.compile(lambda x: quant.linear(x, weight), fullgraph=True, backend="aot_eager")
        x = torch.ones(2, 16)
        print(torch.equal(compiled(x), quant.linear(x, weight)))
    """
    assert run(code) == "True"
    code = """
        import sys, numpy
        from pykernels import quant
        x = numpy.ones((2, 16), numpy.float32)
        quant.linear(x, quant.quantize(x, "int8", granularity="row"), x[0, :2], activation="gelu", input_format="int8")
        print([name for name in ("torch", "triton", "transformers") if name in sys.modules])
    """
    assert run(code) == "[]"
