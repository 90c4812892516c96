"""Shapes of models: parameters as published and as transformers counts them."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from pykernels.inference.plan import Model

PUBLISHED = {  # parameters, as model cards and papers count them
    "llama-2-7b": 6_738_415_616,
    "llama-2-70b": 68_976_648_192,
    "llama-3-8b": 8_030_261_248,
    "llama-3-70b": 70_553_706_496,
    "mistral-7b": 7_241_732_096,
    "gemma-2b": 2_506_172_416,
    "gemma-7b": 8_537_680_896,
    "gpt-j-6b": 6_050_882_784,
    "starcoder": 15_517_456_384,
}
_NAMES = ("num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads")


def _shapes(*sizes):
    return dict(zip(_NAMES, sizes, strict=False))


OTHERS = [  # gpt2, gemma-2-2b, Qwen2-7B, falcon-7b, falcon-40b
    (dict(model_type="gpt2", n_layer=12, n_embd=768, n_head=12, vocab_size=50257), 124_439_808),
    (dict(model_type="gemma2", vocab_size=256000, head_dim=256, **_shapes(26, 2304, 9216, 8, 4)), 2_614_341_888),
    (dict(model_type="qwen2", vocab_size=152064, **_shapes(28, 3584, 18944, 28, 4)), 7_615_616_512),
    (
        dict(model_type="falcon", num_hidden_layers=32, hidden_size=4544, num_attention_heads=71, vocab_size=65024),
        6_921_720_704,
    ),
    (
        dict(
            model_type="falcon",
            num_hidden_layers=60,
            hidden_size=8192,
            num_attention_heads=128,
            num_kv_heads=8,
            new_decoder_architecture=True,
            vocab_size=65024,
        ),
        41_303_293_952,
    ),
]
_LLAMA = dict(hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4, vocab_size=100)
CONFIGS = [
    dict(_LLAMA, model_type="llama", num_key_value_heads=2),
    dict(_LLAMA, model_type="llama", attention_bias=True, mlp_bias=True, tie_word_embeddings=True, head_dim=32),
    dict(_LLAMA, model_type="mistral", num_key_value_heads=1, sliding_window=8),
    dict(_LLAMA, model_type="gemma", num_key_value_heads=1, head_dim=32),
    dict(_LLAMA, model_type="gemma2", num_key_value_heads=2, head_dim=32, sliding_window=8),
    dict(_LLAMA, model_type="qwen2", num_key_value_heads=2),
    dict(model_type="gpt2", n_layer=2, n_embd=64, n_head=4, vocab_size=100, n_positions=32),
    dict(model_type="gptj", n_layer=2, n_embd=64, n_head=4, vocab_size=100, rotary_dim=8),
    dict(model_type="gpt_bigcode", n_layer=2, n_embd=64, n_head=4, vocab_size=100, n_positions=32),
    dict(model_type="gpt_bigcode", n_layer=2, n_embd=64, n_head=4, vocab_size=100, n_inner=96, multi_query=False),
    dict(model_type="falcon", hidden_size=64, num_hidden_layers=2, num_attention_heads=4, vocab_size=100),
    dict(
        model_type="falcon",
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        vocab_size=100,
        new_decoder_architecture=True,
        num_kv_heads=2,
        bias=True,
    ),
]


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_parameters(name):
    assert Model.named(name).parameters == PUBLISHED[name]


@pytest.mark.parametrize(("config", "parameters"), OTHERS)
def test_published_parameters_of_configurations(config, parameters):
    assert Model.from_config(config).parameters == parameters


@pytest.mark.exhaustive
@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config["model_type"])
def test_parameters_are_what_transformers_counts(config):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    with torch.device("meta"):
        peer = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model(**config))
    model = Model.from_config(config)
    assert model.parameters == sum(parameter.numel() for parameter in peer.parameters())


def test_heads_and_windows_of_configurations():
    assert [Model.from_config(config).kv_heads for config in CONFIGS] == [2, 4, 1, 1, 2, 2, 4, 4, 1, 4, 1, 2]
    assert Model.from_config(CONFIGS[2]).windows == 3
    assert Model.from_config(CONFIGS[4]).windows == 2  # the first and the third of three
    assert Model.from_config(dict(CONFIGS[2], sliding_window=None)).windows == 0
    assert Model.from_config(CONFIGS[0]).windows == 0


def test_multi_head_attention_is_padded_with_its_keys():
    heads = replace(Model.named("palm-540b"), kv_heads=48)
    assert heads.with_heads(64).cache_bytes(10) * 48 == heads.cache_bytes(10) * 64 == 48 * 64 * 10 * 118 * 2 * 256 * 2
    assert Model.named("palm-540b").with_heads(64).cache_bytes(10, "int8") == 10 * 118 * 2 * 256


def test_config_from_a_file(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(CONFIGS[0]))
    expected = replace(Model.from_config(CONFIGS[0]), name=tmp_path.name)
    assert Model.from_config(tmp_path) == Model.from_config(tmp_path / "config.json") == expected
