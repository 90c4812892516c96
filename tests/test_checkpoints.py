"""Checkpoints of Hugging Face: the same logits and tokens as its own implementations, and errors that name things."""

from __future__ import annotations

import json

import numpy as np
import pytest

from pykernels.inference import Config, Decoder

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("safetensors")

LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
COMMON = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
BIGCODE = {"vocab_size": 61, "n_embd": 32, "n_head": 4, "n_layer": 2, "n_inner": 48, "n_positions": 64}
CASES = {
    "llama": ("Llama", COMMON),
    "llama-3": ("Llama", COMMON | {"rope_parameters": LLAMA3, "attention_bias": True, "mlp_bias": True}),
    "llama-tied": ("Llama", COMMON | {"tie_word_embeddings": True, "head_dim": 12, "num_key_value_heads": 1}),
    "llama-linear": (
        "Llama",
        COMMON | {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 500.0}},
    ),
    "mistral": ("Mistral", COMMON | {"sliding_window": 6}),
    "gemma": ("Gemma", COMMON | {"head_dim": 256, "num_key_value_heads": 1}),
    "qwen2": ("Qwen2", COMMON),
    "bigcode": ("GPTBigCode", BIGCODE | {"bos_token_id": None, "eos_token_id": None}),
    "bigcode-heads": ("GPTBigCode", BIGCODE | {"multi_query": False, "bos_token_id": None, "eos_token_id": None}),
}


def saved(path, name, dtype=None, **options):
    """A random model of Hugging Face, with biases and norms that matter, saved to a folder."""
    family, config = CASES[name]
    torch.manual_seed(0)
    model = getattr(transformers, f"{family}ForCausalLM")(getattr(transformers, f"{family}Config")(**config)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter + 0.2 * torch.randn_like(parameter))
    model.to(dtype or torch.float32).save_pretrained(path, **options)
    return model


def far(got, expected):
    got, expected = (np.float64(torch.as_tensor(x).detach().float().numpy()) for x in (got, expected))
    return np.abs(got - expected).max() / np.abs(expected).max()


@pytest.mark.parametrize("name", CASES)
def test_logits_and_greedy_tokens_are_those_of_hugging_face(tmp_path, name):
    model = saved(tmp_path, name)
    decoder = Decoder.load(tmp_path)
    tokens = torch.randint(61, (2, 40))
    with torch.no_grad():
        assert far(decoder.logits(tokens), model(tokens).logits) < 1e-4
        prompt = tokens[:, :9]
        expected = model.generate(
            prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=20, do_sample=False, use_cache=True
        )
    cache = decoder.cache(2, 64)
    sequences = [cache.new(), cache.new()]
    following, got = prompt.numpy(), []
    for _ in range(20):
        following = decoder(following, cache, sequences, last_only=True).argmax(-1)[:, None]
        got.append(following)
    np.testing.assert_array_equal(np.concatenate(got, 1), expected[:, 9:].numpy())


@pytest.mark.parametrize("name", ["gemma", "llama-3"])
@pytest.mark.parametrize("dtype", ["bfloat16", pytest.param("float16", marks=pytest.mark.exhaustive)])
def test_half_precision_is_as_close_as_hugging_face(tmp_path, name, dtype):
    family = type(saved(tmp_path, name, getattr(torch, dtype)))
    tokens = torch.randint(61, (2, 20))
    decoder = Decoder.load(tmp_path, device="cpu")
    assert decoder.dtype == dtype
    with torch.no_grad():
        theirs, exact = (family.from_pretrained(tmp_path, dtype=x)(tokens).logits for x in (dtype, "float64"))
    assert far(decoder.logits(tokens), exact) < 2 * far(theirs, exact)
    assert far(Decoder.load(tmp_path, dtype="float32").logits(tokens), exact) < 1e-4


def test_several_files_and_what_they_may_hold_besides(tmp_path):
    model = saved(tmp_path, "llama-tied", max_shard_size="10KB")
    index = tmp_path / "model.safetensors.index.json"
    assert len(set(json.loads(index.read_text())["weight_map"].values())) > 2
    tokens = torch.randint(61, (1, 9))
    with torch.no_grad():
        expected = model(tokens).logits
    assert far(Decoder.load(tmp_path).logits(tokens), expected) < 1e-4
    from safetensors.numpy import save_file

    buffers = {"model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(4, np.float32)}
    buffers["lm_head.weight"] = model.lm_head.weight.detach().numpy()
    save_file(buffers, tmp_path / "more.safetensors")
    described = json.loads(index.read_text())
    described["weight_map"] |= dict.fromkeys(buffers, "more.safetensors")
    index.write_text(json.dumps(described))
    assert far(Decoder.load(tmp_path).logits(tokens), expected) < 1e-4
    index.write_text(json.dumps({"weight_map": {"x": "../more.safetensors"}}))
    with pytest.raises(ValueError, match=r"outside of the folder: \.\./more"):
        Decoder.load(tmp_path)
    index.write_text(json.dumps({"weight_map": {"x": "gone.safetensors"}}))
    with pytest.raises(FileNotFoundError, match=r"gone\.safetensors"):
        Decoder.load(tmp_path)


def test_the_words_of_older_configurations(tmp_path):
    model = saved(tmp_path, "llama-3")
    raw = json.loads((tmp_path / "config.json").read_text())
    scaling = raw.pop("rope_parameters")
    raw["rope_theta"] = scaling.pop("rope_theta")
    raw["rope_scaling"] = scaling
    (tmp_path / "config.json").write_text(json.dumps(raw))
    tokens = torch.randint(61, (1, 40))
    with torch.no_grad():
        assert far(Decoder.load(tmp_path).logits(tokens), model(tokens).logits) < 1e-4


@pytest.mark.parametrize("weights", [None, "int8", "e4m3fn"])
@pytest.mark.parametrize("device", [None, "cpu"])
def test_what_is_saved_is_loaded(tmp_path, weights, device):
    saved(tmp_path / "theirs", "bigcode-heads", torch.bfloat16)
    decoder = Decoder.load(tmp_path / "theirs", weights=weights, device=device)
    decoder.save(tmp_path / "ours")
    again = Decoder.load(tmp_path / "ours", device=device)
    assert again.config == decoder.config and again.dtype == decoder.dtype and again.nbytes == decoder.nbytes
    tokens = np.arange(12).reshape(1, 12)
    np.testing.assert_array_equal(np.asarray(again.logits(tokens)), np.asarray(decoder.logits(tokens)))
    if weights == "int8":
        exact = Decoder.load(tmp_path / "theirs", dtype="float32").logits(tokens)
        assert 1e-4 < far(decoder.logits(tokens), exact) < 0.05


def edited(path, **fields):
    """The folder of a small model whose config.json says something else."""
    saved(path, "llama")
    raw = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(raw | fields))
    return path


@pytest.mark.parametrize(
    "fields, named",
    [
        ({"model_type": "mamba"}, "model_type='mamba': expected one of llama, mistral, gemma"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 2.0}}, "'yarn': expected one of default, linear, llama3"),
        ({"hidden_act": "mish"}, "hidden_act='mish': expected one of silu"),
        ({"layer_types": ["sliding_attention", "full_attention"]}, "layer_types"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantization_config"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor=0.5"),
        ({"model_type": "gemma", "use_bidirectional_attention": True}, "use_bidirectional_attention=True"),
        ({"model_type": "qwen2", "use_sliding_window": True}, "use_sliding_window=True"),
    ],
)
def test_unsupported_configurations_are_named(tmp_path, fields, named):
    with pytest.raises(NotImplementedError, match=named):
        Decoder.load(edited(tmp_path, **fields))


@pytest.mark.parametrize(
    "change, named",
    [
        (lambda t: t.pop("model.norm.weight"), r"missing: model\.norm\.weight$"),
        (lambda t: t.update({"model.layers.7.x": np.ones(1, np.float32)}), r"extra: model\.layers\.7\.x$"),
        (
            lambda t: t.update({"model.layers.1.self_attn.k_proj.weight": np.ones((3, 32), np.float32)}),
            r"misshapen: model\.layers\.1\.self_attn\.k_proj\.weight \(3, 32\) instead of \(16, 32\)$",
        ),
        (lambda t: t.update({"model.norm.weight": np.ones(32, np.int8)}), "model.norm.weight has dtype int8"),
    ],
)
def test_faulty_tensors_are_named(tmp_path, change, named):
    from safetensors.numpy import load_file, save_file

    saved(tmp_path, "llama")
    tensors = load_file(tmp_path / "model.safetensors")
    change(tensors)
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=named):
        Decoder.load(tmp_path)


def test_broken_folders(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        Decoder.load(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json is not JSON"):
        Decoder.load(tmp_path)
    edited(tmp_path, hidden_size=None)
    with pytest.raises(TypeError, match="width=None"):
        Decoder.load(tmp_path)
    for fields, error, message in (
        ({"num_attention_heads": 0}, ValueError, "num_attention_heads=0"),
        ({"num_attention_heads": "4"}, TypeError, "num_attention_heads='4'"),
        ({"rope_parameters": [1]}, ValueError, r"config\.json of a llama is broken"),
    ):
        edited(tmp_path, **fields)
        with pytest.raises(error, match=message):
            Decoder.load(tmp_path)
    edited(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"not one")
    with pytest.raises(ValueError, match=r"model\.safetensors is not a safetensors file"):
        Decoder.load(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks model\.safetensors or"):
        Decoder.load(tmp_path)
    with pytest.raises(ValueError, match="weights='int3'"):
        Decoder.load(tmp_path, weights="int3")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda t: t.pop("layers.0.qkv.weight.scale"), r"missing: layers\.0\.qkv\.weight\.scale$"),
        (lambda t: t.pop("layers.0.up.weight.codes"), r"missing: layers\.0\.up\.weight\.codes$"),
        (
            lambda t: t.update({"layers.0.down.weight.scale": np.ones((3, 1), np.float32)}),
            r"misshapen: layers\.0\.down\.weight\.scale \(3, 1\) instead of \(32, 1\)$",
        ),
    ],
)
def test_faulty_quantized_tensors_are_named(tmp_path, change, named):
    from safetensors.numpy import load_file, save_file

    Decoder.random(Config(vocab=50, layers=1, width=32, hidden=64, heads=4, kv_heads=2, head_dim=8)).quantize(
        "int8"
    ).save(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    change(tensors)
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=named):
        Decoder.load(tmp_path)
