"""quantize_module: which layers, which scales, what they compute, and bad input."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from conftest import refused

pytest.importorskip("torch")
import torch
from test_house import run
from torch import nn
from torch.nn import functional

from pykernels.quant import QuantizedLinear, linear, quantize, quantize_module


class Model(nn.Module):
    """Linear layers of all kinds of places, one twice, and a head tied to the embedding."""

    def __init__(self, dtype=torch.float32):
        super().__init__()
        self.embedding = nn.Embedding(11, 64)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(64, 96), nn.GELU(), nn.Linear(96, 64)) for _ in range(2))
        self.again = self.blocks[0][0]
        self.norm = nn.LayerNorm(64)
        self.head = nn.Linear(64, 11, bias=False)
        self.head.weight = self.embedding.weight
        self.register_buffer("step", torch.tensor(3))
        self.register_buffer("slopes", torch.arange(64.0), persistent=False)
        self.to(dtype)

    def forward(self, tokens):
        x = self.embedding(tokens)
        for block in self.blocks:
            x = x + block(x)
        return self.head(self.norm(x + self.again(x)[..., :64] * self.slopes / 100))


def made(dtype=torch.float32):
    torch.manual_seed(0)
    return Model(dtype).eval()


TOKENS = torch.arange(10).view(2, 5)
QUANTIZED = ["again", "blocks.0.0", "blocks.0.2", "blocks.1.0", "blocks.1.2"]


def layers(model):
    return sorted(n for n, each in model.named_modules(remove_duplicate=False) if isinstance(each, QuantizedLinear))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("format", ["int8", "e4m3fn"])
def test_layers_are_replaced_and_the_model_computes_what_its_weights_say(format, dtype):
    model = made(dtype)
    plain = copy.deepcopy(model)
    assert quantize_module(model, format, granularity=(1, 32)) is model
    assert layers(model) == QUANTIZED and model.again is model.blocks[0][0]
    assert model.head.weight is model.embedding.weight
    for name in QUANTIZED:
        layer, old = model.get_submodule(name), plain.get_submodule(name)
        expected = quantize(old.weight.detach(), format, granularity=(1, 32))
        assert torch.equal(layer.weight.dequantize(), expected.dequantize())
        old.weight.data = layer.weight.dequantize(dtype)
        assert torch.equal(layer.bias, old.bias) and isinstance(layer.bias, nn.Parameter)
    tolerance = 1e-5 if dtype is torch.float32 else 0.05
    torch.testing.assert_close(model(TOKENS), plain(TOKENS), rtol=tolerance, atol=tolerance)
    x = torch.randn(3, 64, dtype=dtype)
    layer = model.blocks[0][0]
    assert torch.equal(layer(x), linear(x, layer.weight, layer.bias))


def test_what_is_skipped():
    for skip, left in {
        "again": ["blocks.0.0", *QUANTIZED[2:]],
        "blocks.*.0": ["again", "blocks.0.2", "blocks.1.2"],
        ("blocks.1", "again"): ["blocks.0.0", "blocks.0.2"],
        (lambda name, layer: layer.in_features == 96): ["again", "blocks.0.0", "blocks.1.0"],
    }.items():
        assert layers(quantize_module(made(), skip=skip)) == left
    model = quantize_module(made(), tied=True)
    assert layers(model) == sorted([*QUANTIZED, "head"]) and not isinstance(model.embedding, QuantizedLinear)
    attention = nn.MultiheadAttention(64, 4)
    assert layers(quantize_module(nn.Sequential(nn.Linear(64, 64), attention))) == ["0"]
    assert isinstance(quantize_module(nn.Linear(8, 8)), QuantizedLinear)


def test_gradients_reach_inputs_and_biases():
    model = made()
    quantize_module(model).train()
    model(TOKENS).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.any(), name
    assert {name for name, _ in model.blocks[0][0].named_parameters()} == {"bias"}


def test_casts_copies_and_state_leave_codes_and_scales_alone():
    model = quantize_module(made(), "e4m3fn", granularity="mx")
    before = model(TOKENS)
    other = copy.deepcopy(model).to(torch.bfloat16)
    layer = other.blocks[0][0]
    assert layer.codes.dtype is torch.float8_e4m3fn and layer.scale.dtype is torch.float8_e8m0fnu
    assert layer.bias.dtype is torch.bfloat16 and other(TOKENS).dtype is torch.bfloat16
    torch.testing.assert_close(other(TOKENS).float(), before, rtol=0.1, atol=0.1)
    another = quantize_module(Model().eval(), "e4m3fn", granularity="mx")
    assert not torch.equal(another(TOKENS), before)
    another.load_state_dict(model.state_dict())
    assert torch.equal(another(TOKENS), before)
    assert layer.to("meta").codes.is_meta


def errors(weight, layer, axes=(1,)):
    return (layer.weight.dequantize().double() - weight.double()).square().sum(axes)


def test_calibrations():
    """Percentiles by NumPy; the least squares by trying every factor, weight by weight."""
    torch.manual_seed(0)
    layer = nn.Linear(70, 24)
    with torch.no_grad():
        layer.weight[:, 0] *= torch.linspace(1, 40, 24)
        layer.weight[3] = 0
        layer.weight[4, 1:] = 0
    weight = layer.weight.detach()
    for format, largest in (("int8", 127), ("e4m3fn", 448)):
        by_max = quantize_module(layer, format)
        for percentile in (50, 98, 100):
            found = quantize_module(layer, format, calibration="percentile", percentile=percentile).scale[:, 0]
            limits = np.percentile(weight.abs().numpy(), percentile, axis=1, method="inverted_cdf")
            expected = np.where(limits > 0, limits / np.float32(largest), by_max.scale[:, 0])
            np.testing.assert_allclose(found, expected, rtol=1e-6)
        least = torch.stack([
            (quantize(weight, format, granularity="row", scale=factor * by_max.scale).dequantize() - weight)
            .double().square().sum(1)
            for factor in np.linspace(1, 0.2, 41).tolist()
        ]).min(0).values  # fmt: skip
        by_error = quantize_module(layer, format, calibration="mse")
        torch.testing.assert_close(errors(weight, by_error), least, rtol=1e-9, atol=0)
        assert format == "int8" or (errors(weight, by_error) < 0.99 * errors(weight, by_max)).sum() > 3
    wide = nn.Linear(4096, 3)
    with torch.no_grad():
        wide.weight.normal_()[:, 5] = 8
    clipped, whole = (quantize_module(wide, calibration=each) for each in ("mse", "max"))
    assert (errors(wide.weight, clipped) < 0.99 * errors(wide.weight, whole)).sum() == 2
    for granularity in ("tensor", "column", (16, 32), (5, 7)):
        whole, some, mse = (
            quantize_module(layer, granularity=granularity, calibration=calibration, percentile=90)
            for calibration in ("max", "percentile", "mse")
        )
        assert errors(weight, mse, (0, 1)) <= errors(weight, whole, (0, 1))
        assert (some.scale <= whole.scale).all() and (some.scale < whole.scale).any()
    some = quantize_module(layer, granularity=(16, 32), calibration="percentile", percentile=90)
    corner = np.percentile(weight[16:, 64:].abs().numpy(), 90, method="inverted_cdf")
    np.testing.assert_allclose(some.scale[1, 2], corner / np.float32(127), rtol=1e-6)


def test_torchs_own_encoder():
    """Its fused paths read weights; quantized layers are computed all the same."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
    model = nn.TransformerEncoder(layer, 2).eval()
    x, padding = torch.randn(2, 6, 32), torch.arange(6) >= torch.tensor([[6], [4]])
    expected = model(x, src_key_padding_mask=padding)
    quantize_module(model)
    assert len(layers(model)) == 4
    with torch.no_grad():
        got = model(x, src_key_padding_mask=padding)
        alone = model.layers[0](x)
    torch.testing.assert_close(got[~padding], expected[~padding], rtol=0.05, atol=0.05)
    assert alone.shape == x.shape


BAD = {
    "model": (TypeError, "model is a Tensor", lambda: quantize_module(torch.ones(3))),
    "no layers": (ValueError, "model has no torch.nn.Linear", lambda: quantize_module(nn.ReLU())),
    "all skipped": (ValueError, "no linear layer left", lambda: quantize_module(made(), skip="*")),
    "skip": (ValueError, "skip='head2' matches no linear layer", lambda: quantize_module(made(), skip="head2")),
    "skip type": (TypeError, "skip has 3", lambda: quantize_module(made(), skip=[3])),
    "format": (ValueError, "format='int4': expected one of e4m3fn", lambda: quantize_module(made(), "int4")),
    "input format": (ValueError, "input_format='fp4'", lambda: quantize_module(made(), input_format="fp4")),
    "granularity": (ValueError, "granularity='rows'", lambda: quantize_module(made(), granularity="rows")),
    "calibration": (ValueError, "calibration='mean'", lambda: quantize_module(made(), calibration="mean")),
    "percentile": (ValueError, "percentile=0", lambda: quantize_module(made(), percentile=0)),
    "percentile type": (TypeError, "percentile='9'", lambda: quantize_module(made(), percentile="9")),
    "mx": (
        ValueError,
        "calibration='mse' with granularity='mx'",
        lambda: quantize_module(made(), granularity="mx", calibration="mse"),
    ),
    "float64": (TypeError, "layer 'blocks.0.0' has a weight in float64", lambda: quantize_module(made(torch.float64))),
    "meta": (NotImplementedError, "layer 'blocks.0.0' is on the meta", lambda: quantize_module(made().to("meta"))),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name):
    refused(*BAD[name])


def test_weights_that_are_not_finite_are_named_before_anything_changes():
    for bad in (torch.nan, torch.inf):
        model = made()
        with torch.no_grad():
            model.blocks[1][2].weight[3, 4] = bad
        with pytest.raises(ValueError, match=r"layer 'blocks.1.2' has a weight with NaN or Inf"):
            quantize_module(model)
        assert not layers(model)


def test_a_compiled_layer_has_the_gradient_of_the_layer():
    model = quantize_module(made(), "e4m3fn", granularity="mx")
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    gradients = []
    for call in (model, compiled):
        model.zero_grad()
        loss = functional.cross_entropy(call(TOKENS).view(-1, 11), TOKENS.view(-1))
        loss.backward()
        gradients.append([loss.detach(), *(x.grad.clone() for x in model.parameters())])
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_without_torch_the_rest_works_and_this_says_so():
    code = """
        import sys
        sys.modules["torch"] = None
        from pykernels import quant
        try:
            quant.quantize_module
        except NotImplementedError as error:
            print(error)
    """
    assert run(code) == "quantize_module needs torch, which is not installed here"
