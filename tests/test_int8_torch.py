"""int8 codes as torch tensors: the same as NumPy's, gradients, torch.compile."""

from __future__ import annotations

import numpy as np
import pytest

from pykernels import quant

torch = pytest.importorskip("torch")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_same_codes_as_numpy(dtype):
    t = torch.randn(30, 70, generator=torch.Generator().manual_seed(0)).to(getattr(torch, dtype))
    wide = t.float().numpy()
    for granularity in ("row", (1, 64)):
        q, expected = (quant.quantize(x, "int8", granularity=granularity) for x in (t, wide))
        assert q.codes.dtype is torch.int8 and q.scale.dtype is torch.float32
        np.testing.assert_array_equal(q.codes.numpy(), expected.codes)
        np.testing.assert_array_equal(q.scale.numpy(), expected.scale)
        rounded = torch.from_numpy(expected.dequantize()).to(t.dtype)
        assert torch.equal(q.dequantize(t.dtype), rounded)
        assert torch.equal(quant.quantize_dequantize(t, "int8", granularity=granularity), rounded)


def test_straight_through_gradient():
    x = torch.randn(8, 33, requires_grad=True)
    weight = torch.randn(8, 33)
    (quant.quantize_dequantize(x, "int8", granularity="row") * weight).sum().backward()
    assert torch.equal(x.grad, weight)


def test_files_load_as_tensors(tmp_path):
    pytest.importorskip("safetensors")
    q = quant.quantize(torch.randn(6, 64), "int8", granularity="mx")
    q.save(tmp_path / "q")
    again = quant.QuantizedTensor.load(tmp_path / "q", framework="torch")
    assert again.codes.dtype is torch.int8 and again.scale.dtype is torch.float8_e8m0fnu
    assert torch.equal(again.codes, q.codes) and torch.equal(again.dequantize(), q.dequantize())


COMPILED = {
    "quantize": lambda x: quant.quantize(x, "int8", granularity=(1, 16)).codes * 1,
    "dequantize": lambda x: quant.quantize(x, "int8", granularity=(4, 8)).dequantize(torch.float64),
    "given": lambda x: quant.quantize(x, "int8", scale=0.5).dequantize(),
    "quantize_dequantize": lambda x: quant.quantize_dequantize(x, "int8", granularity="mx") * 3,
}


@pytest.mark.parametrize("name", COMPILED)
def test_compiles_without_a_graph_break(name):
    x = torch.randn(16, 40)
    compiled = torch.compile(COMPILED[name], fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), COMPILED[name](x), rtol=0, atol=0)


OPERATORS = {
    "quantize": lambda x: (x, "int8", "row", -1, "fp32", "floor", None, "sat", "nearest", None),
    "dequantize": lambda x: (x.to(torch.int8), torch.ones(16, 3), "1,16", -1, "bfloat16"),
    "quantize_dequantize": lambda x: (x, "int8", "4,8", -1, "fp32", "floor", None, "sat", "nearest", None, None),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_operators_pass_opcheck(name):
    from pykernels.quant import _torch  # noqa: F401  registers them

    torch.library.opcheck(getattr(torch.ops.pykernels, name), OPERATORS[name](torch.randn(16, 40)))
