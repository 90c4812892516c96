"""Shapes of published models."""

from __future__ import annotations

from typing import Any

from ... import _options
from ._configs import from_config
from ._model import Model

_PALM: dict[str, Any] = {"vocab": 256128, "kv_heads": 1, "head_dim": 256, "parallel": True}
_SHAPES: dict[str, dict[str, Any]] = {  # PaLM: arXiv 2204.02311 table 1; MT-NLG: arXiv 2201.11990 section 2
    "palm-8b": dict(_PALM, layers=32, width=4096, hidden=16384, heads=16),
    "palm-62b": dict(_PALM, layers=64, width=8192, hidden=32768, heads=32),
    "palm-540b": dict(_PALM, layers=118, width=18432, hidden=73728, heads=48),
    "mt-nlg-530b": {
        "layers": 105,
        "width": 20480,
        "hidden": 81920,
        "heads": 128,
        "kv_heads": 128,
        "head_dim": 160,
        "vocab": 51200,
        "gated": False,
    },
}


def _llama(layers: int, width: int, hidden: int, heads: int, kv_heads: int, vocab: int, **rest: Any) -> dict[str, Any]:
    names = ("num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads")
    shapes = dict(zip(names, (layers, width, hidden, heads, kv_heads), strict=True))
    return {"model_type": "llama", "vocab_size": vocab, **shapes, **rest}


_CONFIGS: dict[str, dict[str, Any]] = {  # as in the published configurations
    "llama-2-7b": _llama(32, 4096, 11008, 32, 32, 32000),
    "llama-2-70b": _llama(80, 8192, 28672, 64, 8, 32000),
    "llama-3-8b": _llama(32, 4096, 14336, 32, 8, 128256),
    "llama-3-70b": _llama(80, 8192, 28672, 64, 8, 128256),
    "llama-3-405b": _llama(126, 16384, 53248, 128, 8, 128256),
    "mistral-7b": _llama(32, 4096, 14336, 32, 8, 32000, model_type="mistral", sliding_window=4096),
    "gemma-2b": _llama(18, 2048, 16384, 8, 1, 256000, model_type="gemma", head_dim=256),
    "gemma-7b": _llama(28, 3072, 24576, 16, 16, 256000, model_type="gemma", head_dim=256),
    "gpt-j-6b": {"model_type": "gptj", "n_layer": 28, "n_embd": 4096, "n_head": 16, "vocab_size": 50400},
    "starcoder": {
        "model_type": "gpt_bigcode",
        "n_layer": 40,
        "n_embd": 6144,
        "n_head": 48,
        "n_positions": 8192,
        "vocab_size": 49152,
    },
}


def names() -> tuple[str, ...]:
    return (*_SHAPES, *_CONFIGS)


def named(name: str) -> Model:
    _options.choice("model", name, names())
    return Model(name, **_SHAPES[name]) if name in _SHAPES else from_config(_CONFIGS[name], name)
