"""Shapes from Hugging Face configurations, family by family."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ._model import Model


class _Config:
    """A configuration: entries that must be there by subscript, others by `get` with what transformers takes."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.values = values

    def __getitem__(self, key: str) -> int:
        if self.values.get(key) is None:
            raise ValueError(f"config has no {key!r}, which model_type={self.values['model_type']!r} needs")
        return self.values[key]  # type: ignore[no-any-return]

    def get(self, key: str, default: Any) -> Any:
        value = self.values.get(key)
        return default if value is None else value


def from_config(config: dict[str, Any] | str | Path, name: str | None = None) -> Model:
    if isinstance(config, str | Path):
        path = Path(config)
        path = path / "config.json" if path.is_dir() else path
        try:
            values = json.loads(path.read_text())
        except json.JSONDecodeError as error:
            raise ValueError(f"{path} is no JSON: {error}") from None
        name = name or path.parent.name
    else:
        values = config
    if not isinstance(values, dict):
        raise TypeError(f"config is a {type(values).__name__}: expected a dictionary or the path of a config.json")
    family = values.get("model_type")
    if family not in _FAMILIES:
        raise ValueError(f"config has model_type={family!r}: expected one of {', '.join(sorted(_FAMILIES))}")
    return Model(name or values.get("_name_or_path") or family, **_FAMILIES[family](_Config(values)))


def _llama(config: _Config) -> dict[str, Any]:
    family = config.values["model_type"]
    gemma = family.startswith("gemma")
    layers, width, hidden = config["num_hidden_layers"], config["hidden_size"], config["intermediate_size"]
    heads = config["num_attention_heads"]
    kv_heads = config.get("num_key_value_heads", heads)
    dim = config.get("head_dim", 256 if gemma else width // heads)
    norms = (4 if family == "gemma2" else 2) * width
    biases = 0
    if family == "qwen2" or config.get("attention_bias", False):
        biases += (heads + 2 * kv_heads) * dim + (0 if family == "qwen2" else width)
    if config.get("mlp_bias", False) and family == "llama":
        biases += 2 * hidden + width
    window, windowed = _window(config, layers)
    return {
        **_sizes(config, layers, width, hidden, heads, kv_heads, dim),
        "tied": config.get("tie_word_embeddings", gemma),
        "window": window,
        "windowed_layers": windowed,
        "other_parameters": layers * (norms + biases) + width,
    }


def _sizes(config: _Config, *sizes: int) -> dict[str, Any]:
    """The fields of `Model` from its layers to its vocabulary."""
    names = ("layers", "width", "hidden", "heads", "kv_heads", "head_dim")
    return {**dict(zip(names, sizes, strict=True)), "vocab": config["vocab_size"]}


def _window(config: _Config, layers: int) -> tuple[int | None, int | None]:
    """The window, and how many layers have it."""
    family, window = config.values["model_type"], config.values.get("sliding_window", 4096)
    used = {"mistral": True, "gemma2": True, "qwen2": config.get("use_sliding_window", False)}.get(family, False)
    if not used or window is None:
        return None, None
    kinds = config.get("layer_types", None)
    if kinds is not None:
        return window, sum(kind == "sliding_attention" for kind in kinds)
    if family == "gemma2":  # every other layer, the first among them
        return window, (layers + 1) // 2
    return window, max(0, layers - config.get("max_window_layers", 28)) if family == "qwen2" else None


def _gpt(config: _Config) -> dict[str, Any]:
    family = config.values["model_type"]
    parallel = family == "gptj"
    layers, width, heads = config["n_layer"], config["n_embd"], config["n_head"]
    hidden = config.get("n_inner", 4 * width)
    dim = width // heads
    kv_heads = 1 if family == "gpt_bigcode" and config.get("multi_query", True) else heads
    tied = config.get("tie_word_embeddings", not parallel)
    if parallel:
        biases, outside = 2 * width + hidden + width, 2 * width + (0 if tied else config["vocab_size"])
    else:
        biases = 4 * width + (heads + 2 * kv_heads) * dim + width + hidden + width
        outside = 2 * width + config.get("n_positions", 1024) * width
    return {
        **_sizes(config, layers, width, hidden, heads, kv_heads, dim),
        "gated": False,
        "parallel": parallel,
        "tied": tied,
        "other_parameters": layers * biases + outside,
    }


def _falcon(config: _Config) -> dict[str, Any]:
    layers, width, heads = config["num_hidden_layers"], config["hidden_size"], config["num_attention_heads"]
    hidden, dim = config.get("ffn_hidden_size", 4 * width), width // heads
    new = config.get("new_decoder_architecture", False)
    parallel = new or config.get("parallel_attn", True)
    kv_heads = config.get("num_kv_heads", heads) if new else 1 if config.get("multi_query", True) else heads
    norms = config.get("num_ln_in_parallel_attn", 2 if new else 1) if parallel else 2
    biases = (heads + 2 * kv_heads) * dim + width + hidden + width if config.get("bias", False) else 0
    return {
        **_sizes(config, layers, width, hidden, heads, kv_heads, dim),
        "gated": False,
        "parallel": parallel,
        "tied": config.get("tie_word_embeddings", True),
        "other_parameters": layers * (2 * norms * width + biases) + 2 * width,
    }


_FAMILIES: dict[str, Callable[[_Config], dict[str, Any]]] = {
    **dict.fromkeys(("llama", "mistral", "gemma", "gemma2", "qwen2"), _llama),
    **dict.fromkeys(("gpt2", "gptj", "gpt_bigcode"), _gpt),
    "falcon": _falcon,
}
