"""torch tensors: the same bytes as NumPy, autograd, torch.compile."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from conftest import as_bytes

from pykernels import quant
from pykernels.kernels.fp8 import cases
from pykernels.kernels.fp8.formats import FORMATS

torch = pytest.importorskip("torch")
TORCH = {name: getattr(torch, name) for name in cases.DTYPES}
F8 = {name: getattr(torch, f"float8_{name}") for name in FORMATS}


def tensor(x: np.ndarray) -> torch.Tensor:
    if x.dtype.name == "bfloat16":
        return torch.from_numpy(np.ascontiguousarray(x).view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(np.ascontiguousarray(x))


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("dtype", cases.DTYPES)
def test_same_bytes_as_numpy(dtype, format):
    x = cases.mixed((50, 70), dtype)
    t = tensor(x)
    codes = quant.encode(t, format)
    assert codes.dtype is F8[format]
    np.testing.assert_array_equal(as_bytes(codes), as_bytes(quant.encode(x, format)))
    decoded = quant.decode(codes, t.dtype)
    assert decoded.dtype is TORCH[dtype]
    np.testing.assert_array_equal(decoded.double().numpy(), quant.decode(quant.encode(x, format)).astype(np.float64))
    q, expected = (quant.quantize(each, format, granularity="mx") for each in (t, x))
    assert q.scale.dtype is torch.float8_e8m0fnu
    np.testing.assert_array_equal(as_bytes(q.codes), as_bytes(expected.codes))
    np.testing.assert_array_equal(as_bytes(q.scale), as_bytes(expected.scale))
    torch.testing.assert_close(
        q.dequantize(t.dtype), quant.quantize_dequantize(t, format, granularity="mx"), equal_nan=True, rtol=0, atol=0
    )
    assert quant.amax(t[:1]).dtype is t.dtype


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize(("format", "overflow"), [("e4m3fn", "sat"), ("e5m2", "nonsat")])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_agrees_with_torch_where_policies_are_shared(dtype, format, overflow):
    if format == "e4m3fn" and tuple(map(int, torch.__version__.split(".")[:2])) < (2, 12):
        pytest.skip("torch saturates e4m3fn since 2.12")
    t = tensor(cases.every_pattern(dtype))
    ours, theirs = quant.encode(t, format, overflow=overflow), t.to(F8[format])
    nan = t.isnan().numpy()
    np.testing.assert_array_equal(as_bytes(ours)[~nan], as_bytes(theirs)[~nan])
    assert ours.float().isnan().numpy()[nan].all()


def test_strides_are_kept_and_out_is_filled():
    t = torch.randn(3, 40, 70)
    for view in (t.transpose(0, 2), t[:, ::2], t.permute(1, 2, 0), t[0, 0], t.expand(2, 3, 40, 70)):
        codes = quant.encode(view, "e4m3fn")
        assert torch.equal(codes.float(), view.to(torch.float8_e4m3fn).float())
        out = torch.empty(view.shape, dtype=torch.float8_e5m2)
        assert quant.encode(view, "e5m2", out=out) is out
        assert torch.equal(out.float(), quant.encode(view, "e5m2").float())
    assert quant.encode(t.transpose(0, 2), "e4m3fn").stride() == t.transpose(0, 2).stride()
    with pytest.raises(ValueError, match="shares memory"):
        quant.encode(t, "e4m3fn", out=t.view(torch.float8_e4m3fn)[..., :70])
    with pytest.raises(TypeError, match="out is a ndarray"):
        quant.decode(quant.encode(t, "e4m3fn"), out=np.empty(t.shape, np.float32))
    with pytest.raises(TypeError, match="x has dtype int64"):
        quant.encode(torch.arange(3), "e4m3fn")


def test_straight_through_gradient():
    x = torch.randn(8, 33, requires_grad=True)
    y = quant.quantize_dequantize(x, "e4m3fn", granularity="row")
    assert torch.equal(y.detach(), quant.quantize_dequantize(x.detach(), "e4m3fn", granularity="row"))
    weight = torch.randn(8, 33)
    (y * weight).sum().backward()
    assert torch.equal(x.grad, weight)
    assert not quant.encode(x, "e4m3fn").requires_grad
    with torch.no_grad():
        assert not quant.quantize_dequantize(x, "e4m3fn").requires_grad


def test_scaled_matmul():
    a, b = torch.randn(20, 64), torch.randn(64, 30)
    qa, qb = quant.quantize(a, "e4m3fn", granularity="row"), quant.quantize(b, "e4m3fn", granularity="column")
    product = quant.scaled_matmul(qa, qb, torch.bfloat16)
    assert product.dtype is torch.bfloat16
    torch.testing.assert_close(product, (qa.dequantize() @ qb.dequantize()).bfloat16())
    with pytest.raises(TypeError, match="both of NumPy"):
        quant.scaled_matmul(qa, quant.quantize(b.numpy(), "e4m3fn"))


def test_files_load_as_tensors(tmp_path):
    pytest.importorskip("safetensors")
    q = quant.quantize(torch.randn(6, 64), "e5m2", granularity="mx")
    q.save(tmp_path / "q")
    again = quant.QuantizedTensor.load(tmp_path / "q", framework="torch")
    assert again.codes.dtype is torch.float8_e5m2 and again.scale.dtype is torch.float8_e8m0fnu
    assert torch.equal(again.dequantize(), q.dequantize())


COMPILED = {
    "encode": lambda x: quant.encode(x * 2, "e4m3fn").float(),
    "encode out": lambda x: quant.encode(x, "e4m3fn", out=torch.empty(x.shape, dtype=torch.float8_e4m3fn)).float(),
    "stochastic": lambda x: quant.encode(x, "e5m2", rounding="stochastic", seed=(1 << 64) - 5).float(),
    "decode": lambda x: quant.decode(quant.encode(x, "e5m2"), torch.bfloat16) + 1,
    "amax": lambda x: x / quant.amax(x, 1, keepdims=True),
    "quantize": lambda x: quant.quantize(x, "e4m3fn", granularity="mx").dequantize(),
    "quantize block": lambda x: quant.quantize(x, "e4m3fn", granularity=(4, 8), scale_format="pow2").scale * 1,
    "quantize given": lambda x: quant.quantize(x, "e4m3fn", scale=0.5).dequantize(torch.float64),
    "quantize_dequantize": lambda x: quant.quantize_dequantize(x, "e4m3fn", granularity="row") * 3,
    "scaled_matmul": lambda x: quant.scaled_matmul(quant.quantize(x, "e4m3fn"), quant.quantize(x.T, "e4m3fn")),
}


COMPILE = functools.partial(torch.compile, fullgraph=True, backend="aot_eager")


@pytest.mark.parametrize("name", COMPILED)
def test_compiles_without_a_graph_break(name):
    """By the eager backend of torch.compile, which needs no C++ compiler; the graph is the same."""
    x = torch.randn(16, 40)
    compiled = torch.compile(COMPILED[name], fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), COMPILED[name](x), rtol=0, atol=0)
    for rows in (24, 32):
        y = torch.randn(rows, 40)
        torch.testing.assert_close(compiled(y), COMPILED[name](y), rtol=0, atol=0)


def test_a_backend_is_not_ignored_in_a_graph():
    with pytest.raises(Exception, match="backend='reference'"):
        COMPILE(lambda x: quant.encode(x, "e4m3fn", backend="reference").float())(torch.randn(4))


def test_compiled_function_returns_a_quantized_tensor_and_a_gradient():
    x = torch.randn(16, 64)
    compiled = torch.compile(
        lambda x: quant.quantize(x, "e4m3fn", granularity="row"), fullgraph=True, backend="aot_eager"
    )
    q = compiled(x)
    assert isinstance(q, quant.QuantizedTensor) and q.granularity == "row"
    assert torch.equal(q.dequantize(), quant.quantize(x, "e4m3fn", granularity="row").dequantize())
    loss = torch.compile(
        lambda x: quant.quantize_dequantize(x, "e4m3fn").square().sum(), fullgraph=True, backend="aot_eager"
    )
    x.requires_grad_()
    loss(x).backward()
    assert torch.equal(x.grad, 2 * quant.quantize_dequantize(x.detach(), "e4m3fn"))


OPERATORS = {
    "encode": lambda x: (x, "e4m3fn", "sat", "nearest", None),
    "decode": lambda x: (torch.arange(0x7C, dtype=torch.uint8), "float32", "e5m2"),
    "amax": lambda x: (x.detach(), 1, True),
    "quantize": lambda x: (x.detach(), "e4m3fn", "mx", -1, "e8m0", "floor", None, "sat", "nearest", None),
    "dequantize": lambda x: (quant.encode(x.detach(), "e4m3fn"), torch.ones(16, 1), "row", -1, "float32"),
    "quantize_dequantize": lambda x: (x, "e4m3fn", "4,8", -1, "fp32", "floor", None, "sat", "nearest", None, None),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_operators_pass_opcheck(name):
    from pykernels.quant import _torch  # noqa: F401  registers them

    operator = getattr(torch.ops.pykernels, name)
    for x in (torch.randn(16, 40), torch.randn(40, 16).T, torch.randn(16, 40, requires_grad=True)):
        if name == "encode":
            x = x.detach()
        options = {}
        if name == "dequantize":  # opcheck's own schema test multiplies its inputs, which float8 cannot on the CPU
            options["test_utils"] = ("test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic")
        torch.library.opcheck(operator, OPERATORS[name](x), **options)


def test_delayed_scaling_of_tensors():
    scaling = quant.DelayedScaling(2)
    scaling.quantize(torch.full((3,), 896.0, dtype=torch.bfloat16))
    scaling.update()
    assert scaling.scale == 2 and scaling.quantize(torch.tensor([896.0])).dequantize().item() == 896
