"""The decoder of Hugging Face transformers, eager and compiled, on the memory of ours where it can be."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np

from pykernels.bench.fp8_peers import absent as absent_torch
from pykernels.bench.fp8_peers import tensor
from pykernels.bench.harness import Call
from pykernels.inference import Decoder

Array = np.ndarray[Any, Any]
Step = Callable[[int], Array]
"""Appends a token to a context, and returns the logits (V,) of what follows."""

EAGER, COMPILED = "transformers bf16", "transformers bf16 compiled"
FP32, COMPILED_FP32 = "transformers fp32", "transformers fp32 compiled"
BY_COMPILER = COMPILED, COMPILED_FP32


def absent() -> dict[str, str]:
    """Why a peer cannot run here."""
    for package in ("torch", "transformers"):
        if importlib.util.find_spec(package) is None:
            return dict.fromkeys((EAGER, FP32, *BY_COMPILER), f"{package} is not installed")
    reason = absent_torch().get("torch.compile")
    return {} if reason is None else dict.fromkeys(BY_COMPILER, reason)


def model(decoder: Decoder, dtype: str) -> Any:
    """A LlamaForCausalLM with the weights of a decoder, in its memory if it has this dtype."""
    torch: Any = importlib.import_module("torch")
    llama: Any = importlib.import_module("transformers.models.llama.modeling_llama")
    c = decoder.config
    config = llama.LlamaConfig(
        vocab_size=c.vocab,
        num_hidden_layers=c.layers,
        hidden_size=c.width,
        intermediate_size=c.hidden,
        num_attention_heads=c.heads,
        num_key_value_heads=c.kv_heads,
        head_dim=c.head_dim,
        rms_norm_eps=c.norm_eps,
        rope_theta=c.rotary_theta,
        max_position_embeddings=c.max_length,
        tie_word_embeddings=c.tied,
        attn_implementation="sdpa",
    )
    with torch.device("meta"):
        made = llama.LlamaForCausalLM(config)
    weights = {name: tensor(x).to(getattr(torch, dtype)) for name, x in _named(decoder).items()}
    made.load_state_dict(weights, assign=True)
    made.model.rotary_emb = llama.LlamaRotaryEmbedding(config)
    return made.requires_grad_(False).eval()


def steps(model: Any, context: Array, room: int, compiled: bool = False) -> Step:
    """Decoding after a context; `room` for tokens in all, which a compiled model's cache has from the beginning."""
    torch: Any = importlib.import_module("torch")
    transformers: Any = importlib.import_module("transformers")
    if compiled:
        cache = transformers.StaticCache(config=model.config, max_cache_len=len(context) + room)
    else:
        cache = transformers.DynamicCache(config=model.config)
    _last(torch, model, context, cache)
    run = torch.compile(model, dynamic=False) if compiled else model
    return lambda token: _last(torch, run, np.array([token]), cache)


def prefill(model: Any, context: Array) -> Call:
    """The logits (V,) of what follows a context, which goes into a new cache."""
    torch: Any = importlib.import_module("torch")
    transformers: Any = importlib.import_module("transformers")
    return lambda: _last(torch, model, context, transformers.DynamicCache(config=model.config))


def _last(torch: Any, model: Any, tokens: Array, cache: Any) -> Array:
    with torch.no_grad():
        out = model(torch.from_numpy(tokens)[None], past_key_values=cache, use_cache=True, logits_to_keep=1)
        found: Array = out.logits[0, -1].float().numpy()
    return found


def _named(decoder: Decoder) -> dict[str, Array]:
    """The weights by the names that transformers has for Llama."""
    c, weights = decoder.config, decoder.weights
    queries, keys = c.heads * c.head_dim, c.kv_heads * c.head_dim
    named = {
        "model.embed_tokens.weight": weights["embedding"],
        "lm_head.weight": weights["embedding" if c.tied else "head.weight"],
        "model.norm.weight": weights["final_norm.weight"],
    }
    for i in range(c.layers):
        own = {part: weights[f"layers.{i}.{part}.weight"] for part in ("qkv", "output", "up", "down")}
        parts = {f"self_attn.{name}_proj": x for name, x in zip("qkv", _split(own["qkv"], queries, keys), strict=True)}
        parts |= {"self_attn.o_proj": own["output"], "mlp.down_proj": own["down"]}
        parts |= {"mlp.gate_proj": own["up"][: c.hidden], "mlp.up_proj": own["up"][c.hidden :]}
        parts["input_layernorm"] = weights[f"layers.{i}.attention_norm.weight"]
        parts["post_attention_layernorm"] = weights[f"layers.{i}.feedforward_norm.weight"]
        named |= {f"model.layers.{i}.{name}.weight": x for name, x in parts.items()}
    return named


def _split(qkv: Array, queries: int, keys: int) -> list[Array]:
    return np.split(qkv, [queries, queries + keys])
