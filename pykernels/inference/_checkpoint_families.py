"""What Hugging Face families call things: configurations and names of tensors."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

from .. import _options
from ._config import Config, RotaryScaling

ACTIVATIONS = {
    "silu": "silu",
    "swish": "silu",
    "relu": "relu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
}
ROTARY = ("default", "linear", "llama3")
BUFFERS = re.compile(r"(^|\.)(rotary_emb\.inv_freq|attn\.bias|attn\.masked_bias)$")


class Part(NamedTuple):
    """A tensor of a checkpoint: the next `rows` of a weight, 0 for all of it."""

    name: str
    rows: int = 0


class Tensors(NamedTuple):
    """Which tensors make up each weight."""

    parts: dict[str, list[Part]]
    tied: bool
    per_head: bool = False  # rows of qkv lie head by head: q, k and v of the first, and so on

    def ignored(self, name: str) -> bool:
        """Whether a tensor says nothing that the configuration does not say."""
        return BUFFERS.search(name) is not None or (self.tied and name == "lm_head.weight")


def family(raw: dict[str, Any]) -> tuple[Config, Tensors]:
    """The configuration and tensors that a config.json describes."""
    kind = raw.get("model_type")
    if kind not in FAMILIES:
        raise NotImplementedError(f"model_type={kind!r}: expected one of {', '.join(FAMILIES)}")
    if raw.get("quantization_config") is not None:
        raise NotImplementedError("quantization_config: expected a checkpoint of floating-point numbers, without it")
    for name in ("hidden_size", "num_attention_heads", "n_embd", "n_head"):
        if raw.get(name) is not None:
            _options.integer(name, raw[name], 1)
    try:
        return FAMILIES[kind](raw)
    except KeyError as error:
        raise ValueError(f"config.json of a {kind} lacks {error.args[0]!r}") from None
    except AttributeError as error:
        raise ValueError(f"config.json of a {kind} is broken: {error}") from None


def _llama_like(raw: dict[str, Any], **particular: Any) -> tuple[Config, Tensors]:
    """Llama and its kin: rms norms, rotary positions, a gate."""
    layered = raw.get("layer_types") or []
    if any(kind != "full_attention" for kind in layered):
        raise NotImplementedError(f"layer_types={layered}: expected full_attention in all layers")
    width, heads = raw["hidden_size"], raw["num_attention_heads"]
    theta, scaling = _rotary(raw)
    defaults = {
        "vocab": raw["vocab_size"],
        "layers": raw["num_hidden_layers"],
        "width": width,
        "hidden": raw["intermediate_size"],
        "heads": heads,
        "kv_heads": raw.get("num_key_value_heads") or heads,
        "head_dim": raw.get("head_dim") or width // heads,
        "activation": _activation("hidden_act", raw.get("hidden_act", "silu")),
        "norm_eps": raw.get("rms_norm_eps", 1e-6),
        "rotary_theta": theta,
        "rotary_scaling": scaling,
        "tied": raw.get("tie_word_embeddings", False),
        "max_length": raw.get("max_position_embeddings", 2048),
    }
    config = Config(**(defaults | particular))
    queries, keys = heads * config.head_dim, config.kv_heads * config.head_dim
    parts = {"embedding": [Part("model.embed_tokens.weight")], "final_norm.weight": [Part("model.norm.weight")]}
    for i in range(config.layers):
        ours, theirs = f"layers.{i}.", f"model.layers.{i}."
        parts[f"{ours}attention_norm.weight"] = [Part(f"{theirs}input_layernorm.weight")]
        parts[f"{ours}feedforward_norm.weight"] = [Part(f"{theirs}post_attention_layernorm.weight")]
        for end in ("weight", "bias"):
            if end == "weight" or config.qkv_bias:
                rows = (("q", queries), ("k", keys), ("v", keys))
                parts[f"{ours}qkv.{end}"] = [Part(f"{theirs}self_attn.{x}_proj.{end}", n) for x, n in rows]
            if end == "weight" or config.output_bias:
                parts[f"{ours}output.{end}"] = [Part(f"{theirs}self_attn.o_proj.{end}")]
            if end == "weight" or config.feedforward_bias:
                both = [Part(f"{theirs}mlp.{x}_proj.{end}", config.hidden) for x in ("gate", "up")]
                parts[f"{ours}up.{end}"] = both
                parts[f"{ours}down.{end}"] = [Part(f"{theirs}mlp.down_proj.{end}")]
    if not config.tied:
        parts["head.weight"] = [Part("lm_head.weight")]
    return config, Tensors(parts, config.tied)


def _llama(raw: dict[str, Any]) -> tuple[Config, Tensors]:
    attention, feedforward = raw.get("attention_bias", False), raw.get("mlp_bias", False)
    return _llama_like(raw, qkv_bias=attention, output_bias=attention, feedforward_bias=feedforward)


def _mistral(raw: dict[str, Any]) -> tuple[Config, Tensors]:
    return _llama_like(
        {"num_key_value_heads": 8, "max_position_embeddings": 131_072, **raw}, window=raw.get("sliding_window", 4096)
    )


def _gemma(raw: dict[str, Any]) -> tuple[Config, Tensors]:
    _expect(raw, "use_bidirectional_attention", (None, False))
    name = raw.get("hidden_activation") or raw.get("hidden_act") or "gelu_pytorch_tanh"
    attention = raw.get("attention_bias", False)
    return _llama_like(
        {"head_dim": 256, "max_position_embeddings": 8192, "tie_word_embeddings": True, **raw},
        activation="gelu_tanh" if name == "gelu" else _activation("hidden_act", name),  # the first configs said "gelu"
        norm_offset=1.0,
        embedding_scale=raw["hidden_size"] ** 0.5,
        qkv_bias=attention,
        output_bias=attention,
    )


def _qwen2(raw: dict[str, Any]) -> tuple[Config, Tensors]:
    _expect(raw, "use_sliding_window", (False,))
    return _llama_like({"max_position_embeddings": 32_768, **raw}, qkv_bias=True)


def _gpt_bigcode(raw: dict[str, Any]) -> tuple[Config, Tensors]:
    _expect(raw, "add_cross_attention", (False,))
    _expect(raw, "scale_attn_weights", (True,))
    width, heads, shared = raw["n_embd"], raw["n_head"], raw.get("multi_query", True)
    config = Config(
        vocab=raw["vocab_size"],
        layers=raw["n_layer"],
        width=width,
        hidden=raw.get("n_inner") or 4 * width,
        heads=heads,
        kv_heads=1 if shared else heads,
        head_dim=width // heads,
        gated=False,
        activation=_activation("activation_function", raw.get("activation_function", "gelu_pytorch_tanh")),
        norm="layer",
        norm_eps=raw.get("layer_norm_epsilon", 1e-5),
        rotary_theta=None,
        learned_positions=raw["n_positions"],
        tied=raw.get("tie_word_embeddings", True),
        qkv_bias=True,
        output_bias=True,
        feedforward_bias=True,
        max_length=raw["n_positions"],
    )
    names = {"attention_norm": "ln_1", "feedforward_norm": "ln_2", "qkv": "attn.c_attn", "output": "attn.c_proj"}
    names |= {"up": "mlp.c_fc", "down": "mlp.c_proj"}
    parts = {"embedding": [Part("transformer.wte.weight")], "positions": [Part("transformer.wpe.weight")]}
    for end in ("weight", "bias"):
        parts[f"final_norm.{end}"] = [Part(f"transformer.ln_f.{end}")]
        for i in range(config.layers):
            parts |= {f"layers.{i}.{x}.{end}": [Part(f"transformer.h.{i}.{y}.{end}")] for x, y in names.items()}
    if not config.tied:
        parts["head.weight"] = [Part("lm_head.weight")]
    return config, Tensors(parts, config.tied, per_head=not shared)


FAMILIES: dict[Any, Callable[[dict[str, Any]], tuple[Config, Tensors]]] = {
    "llama": _llama,
    "mistral": _mistral,
    "gemma": _gemma,
    "qwen2": _qwen2,
    "gpt_bigcode": _gpt_bigcode,
}


def _rotary(raw: dict[str, Any]) -> tuple[float, RotaryScaling | None]:
    """The base of the frequencies and their scaling, in the words of old (rope_scaling) and new configs."""
    name = "rope_parameters" if raw.get("rope_parameters") else "rope_scaling"
    given = raw.get(name) or {}
    kind = given.get("rope_type", given.get("type", "default"))
    if kind not in ROTARY:
        raise NotImplementedError(f"{name} of rope_type {kind!r}: expected one of {', '.join(ROTARY)}")
    for options in (raw, given):
        _expect(options, "partial_rotary_factor", (1.0, None))
    theta = given.get("rope_theta", raw.get("rope_theta", 10_000.0))
    if kind == "default":
        return theta, None
    if kind == "linear":
        return theta, RotaryScaling(given["factor"])
    return theta, RotaryScaling(
        given["factor"],
        given["low_freq_factor"],
        given["high_freq_factor"],
        given["original_max_position_embeddings"],
    )


def _activation(field: str, name: Any) -> str:
    if name not in ACTIVATIONS:
        raise NotImplementedError(f"{field}={name!r}: expected one of {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]


def _expect(raw: dict[str, Any], field: str, supported: tuple[Any, ...]) -> None:
    if raw.get(field, supported[0]) not in supported:
        raise NotImplementedError(f"{field}={raw[field]!r}: expected {' or '.join(map(repr, supported))}")
