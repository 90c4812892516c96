"""Files of models with quantized layers, and models of Hugging Face: quantized, kept, loaded, compiled."""

from __future__ import annotations

import copy
import json
import re

import pytest

pytest.importorskip("torch")
pytest.importorskip("safetensors")
import torch
from test_quantize_module import TOKENS, Model, layers, made
from torch import nn

from pykernels.quant import load_module, quantize_module, save_module


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_files(tmp_path, dtype):
    for number, options in enumerate(
        ({}, {"format": "e5m2", "granularity": "mx"}, {"granularity": (8, 32), "input_format": "int8", "tied": True})
    ):
        model = quantize_module(made(dtype), **options)
        path = tmp_path / f"{number}.safetensors"
        save_module(model, path)
        expected = model(TOKENS)
        other = Model(dtype).eval()
        assert load_module(other, path) is other and torch.equal(other(TOKENS), expected)
        assert layers(other) == layers(model) and other.blocks[0][0].input_format == options.get("input_format")
        assert torch.equal(load_module(other, path)(TOKENS), expected)
        with torch.device("meta"):
            empty = Model(dtype).eval()
        assert torch.equal(load_module(empty, path)(TOKENS), expected)
        assert "tied" in options or empty.head.weight is empty.embedding.weight
        assert not any(x.is_meta for x in (*empty.parameters(), *empty.buffers()))
    alone = quantize_module(nn.Linear(8, 8))
    save_module(alone, tmp_path / "alone")
    x = torch.randn(2, 8)
    assert torch.equal(load_module(nn.Linear(8, 8), tmp_path / "alone")(x), alone(x))


def test_files_that_do_not_fit_are_refused_and_change_nothing(tmp_path):
    from safetensors.torch import save_file

    path = tmp_path / "model"
    save_module(quantize_module(made()), path)
    for change, text in (
        (lambda m: m.register_parameter("extra", nn.Parameter(torch.ones(2))), "missing: extra"),
        (lambda m: delattr(m, "norm"), "extra: norm.bias, norm.weight"),
        (lambda m: setattr(m, "norm", nn.LayerNorm(65)), "misshapen: norm.weight (64,) instead of (65,)"),
        (lambda m: setattr(m.blocks[1], "2", nn.Linear(97, 64)), "blocks.1.2.codes (64, 96) instead of (64, 97)"),
        (lambda m: setattr(m.blocks[1], "2", nn.Identity()), "model has no linear layers 'blocks.1.2'"),
    ):
        model = made()
        change(model)
        before = {name: x.clone() for name, x in model.state_dict().items()}
        with pytest.raises(ValueError, match=re.escape(text)) as raised:
            load_module(model, path)
        assert str(path) in str(raised.value) and not layers(model)
        assert all(torch.equal(x, before[name]) for name, x in model.state_dict().items())
    (tmp_path / "text").write_text("no safetensors")
    with pytest.raises(ValueError, match="is not a safetensors file"):
        load_module(made(), tmp_path / "text")
    with pytest.raises(FileNotFoundError):
        load_module(made(), tmp_path / "nowhere")
    for metadata in (None, {"kind": "pykernels.QuantizedModule/1", "layers": json.dumps([])}):
        save_file({"x": torch.ones(1)}, tmp_path / "other", metadata)
        with pytest.raises(ValueError, match="other"):
            load_module(made(), tmp_path / "other")
    with pytest.raises(ValueError, match="no QuantizedLinear"):
        save_module(made(), tmp_path / "float")
    with pytest.raises(ValueError, match="on the meta device"):
        save_module(quantize_module(made()).to("meta"), tmp_path / "float")


def family(name):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    if name == "gpt2":
        config = transformers.GPT2Config(n_embd=64, n_layer=2, n_head=2, vocab_size=50, n_positions=64)
        return transformers.GPT2LMHeadModel, config, 8
    config = transformers.LlamaConfig(
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=50,
        tie_word_embeddings=False,
    )
    return transformers.LlamaForCausalLM, config, 15


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_hugging_face(name, tmp_path):
    """Near the model in full width, the same once more from a file, in a graph, and when it generates."""
    make, config, count = family(name)
    model = make(config).eval()
    plain = copy.deepcopy(model)
    quantize_module(model)
    assert len(layers(model)) == count
    tokens = torch.arange(14).view(2, 7)
    with torch.no_grad():
        expected, got = plain(tokens).logits, model(tokens).logits
        assert (got - expected).abs().max() < 0.03 * expected.abs().max()
        for layer in layers(model):
            old, new = plain.get_submodule(layer), model.get_submodule(layer)
            wide = new.weight.dequantize()
            old.weight.copy_(wide if isinstance(old, nn.Linear) else wide.T)
        torch.testing.assert_close(got, plain(tokens).logits, rtol=1e-4, atol=1e-4)
        options = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
        assert torch.equal(model.generate(tokens, **options), plain.generate(tokens, **options))
        save_module(model, tmp_path / "model")
        with torch.device("meta"):
            empty = make(config).eval()
        assert torch.equal(load_module(empty, tmp_path / "model")(tokens).logits, got)
        assert torch.equal(empty.generate(tokens, **options), model.generate(tokens, **options))
        compiled = torch.compile(lambda x: model(x, use_cache=False).logits, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(tokens), got, rtol=1e-5, atol=1e-5)
