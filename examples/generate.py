"""Generation with a Hugging Face model whose query heads share one head of keys and values (GPTBigCode, StarCoder's).

The weights are random, so that nothing is downloaded. Eager attention, torch's and ours get the same prompts, and
continue them alike.

    python examples/generate.py
"""

from __future__ import annotations

import time
from typing import Any

import torch
from transformers import GPTBigCodeConfig, GPTBigCodeForCausalLM

from pykernels.attention import register_with_transformers

IMPLEMENTATIONS = ("eager", "sdpa", "pykernels")


def model(width: int, heads: int, layers: int, positions: int) -> Any:
    config = GPTBigCodeConfig(
        vocab_size=256,
        n_positions=positions,
        n_embd=width,
        n_head=heads,
        n_layer=layers,
        multi_query=True,
        bos_token_id=None,
        eos_token_id=None,
        initializer_range=0.1,
        tie_word_embeddings=False,
    )
    torch.manual_seed(0)
    return GPTBigCodeForCausalLM(config).eval()


def compare(
    width: int = 768, heads: int = 12, layers: int = 4, prompt: int = 2048, new: int = 32, batch: int = 8
) -> dict[str, tuple[float, float, torch.Tensor]]:
    """Seconds for the prompt, seconds for each further token, and the tokens (batch, new), by implementation."""
    register_with_transformers()
    network = model(width, heads, layers, prompt + new)
    ids = torch.randint(256, (batch, prompt), generator=torch.Generator().manual_seed(0))
    results = {}
    for name in IMPLEMENTATIONS:
        network.set_attn_implementation(name)
        generate(network, ids, 2)  # compiles what is to be compiled
        started = time.perf_counter()
        generate(network, ids, 1)
        first = time.perf_counter() - started
        started = time.perf_counter()
        tokens = generate(network, ids, new)
        rest = time.perf_counter() - started - first
        results[name] = first, rest / (new - 1), tokens[:, prompt:]
    return results


def generate(network: Any, ids: torch.Tensor, count: int) -> torch.Tensor:
    with torch.inference_mode():
        tokens: torch.Tensor = network.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, do_sample=False, pad_token_id=0
        )
    return tokens


if __name__ == "__main__":
    compared = compare()
    for name, (first, each, tokens) in compared.items():
        same = "the same tokens" if torch.equal(tokens, compared["eager"][2]) else "other tokens"
        print(f"{name:10}  prompt {first:6.2f} s   token {1000 * each:7.1f} ms   {same}")
