"""Decoders and checkpoints for tests of sharded decoding, and what its processes do."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from plain_decoder import PLAIN
from torch.distributed.device_mesh import init_device_mesh

from pykernels._group import Group
from pykernels.inference import Config, Decoder, _weights, generate
from pykernels.inference._checkpoint_families import family
from pykernels.inference.distributed import ShardedDecoder
from pykernels.inference.distributed._placement import shapes_of
from pykernels.inference.plan.volumes import ATTENTION, LAYOUTS, collectives

PALM = Config(vocab=37, layers=2, width=32, hidden=40, heads=4, kv_heads=1, head_dim=8, block="parallel")
CONFIGS = {
    "palm": PALM,
    "grouped": replace(PALM, block="serial", kv_heads=2, width=30, tied=False, norm_offset=1.0, embedding_scale=3.0),
    "plain": replace(PALM, block="serial", heads=3, kv_heads=3, hidden=41, activation="gelu", **PLAIN),
}
MESHES = {2: [(2, 1, 1), (1, 1, 2)], 4: [(2, 1, 2), (1, 2, 2), (2, 2, 1)]}
TOKENS = np.random.default_rng(1).integers(0, 37, (5, 6))
BIGCODE = {"model_type": "gpt_bigcode", "vocab_size": 37, "n_embd": 32, "n_head": 4, "n_layer": 2, "n_positions": 64}
CHECKPOINTS = {
    "llama": {
        "model_type": "llama",
        "vocab_size": 37,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    },
    "bigcode": BIGCODE | {"n_inner": 48, "multi_query": False},
}


def model(name):
    """A decoder with biases and norms that matter; the grouped one has int8 weights."""
    config, numbers = CONFIGS[name], np.random.default_rng(3)
    weights = {
        key: (x + 0.3 * numbers.standard_normal(x.shape) * (x.ndim == 1)).astype(np.float32)
        for key, x in Decoder.random(config, seed=3).weights.items()
    }
    decoder = Decoder(config, weights)
    return decoder.quantize("int8") if name == "grouped" else decoder


def write_checkpoint(folder, name):
    """Random tensors in the names and shapes of a family of Hugging Face."""
    save_file = pytest.importorskip("safetensors.numpy").save_file
    config, tensors = family(CHECKPOINTS[name])
    numbers, made = np.random.default_rng(4), {}
    for weight, parts in tensors.parts.items():
        shape = _weights.shapes(config)[weight]
        for part in parts:
            x = numbers.standard_normal((part.rows or shape[0], *shape[1:])) / np.sqrt(shape[-1])
            made[part.name] = (x + 1.0 * (len(shape) == 1)).astype(np.float32)
    folder.mkdir()
    save_file(made, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(CHECKPOINTS[name]))


def steps(decoder):
    """Logits of a prefill, of a step of all sequences, and of a step of some in another order."""
    cache = decoder.cache(5, 8)
    sequences = [cache.new() for _ in TOKENS]
    yield decoder(TOKENS[:, :3], cache, sequences)
    yield decoder(TOKENS[:, 3:4], cache, sequences)
    yield decoder(TOKENS[[3, 1], 4:], cache, [sequences[3], sequences[1]], last_only=True)
    assert cache.lengths(sequences).tolist() == [4, 6, 4, 6, 4]


def close(got, expected, name, bound=1e-5):
    difference = np.abs(np.asarray(got, np.float64) - expected).max() / np.abs(expected).max()
    assert difference < bound, (name, difference)


def check_layouts(size, folder):
    """Every layout gives the logits of one process, the same bits everywhere, and moves what the plan says."""
    models = {name: model(name) for name in CONFIGS}
    with np.load(f"{folder}/expected.npz") as file:
        expected = dict(file)
    for i, case in enumerate(product(MESHES[size], LAYOUTS, ATTENTION)):
        name = list(CONFIGS)[i % len(CONFIGS)]
        decoder = ShardedDecoder(models[name], *case, timeout=60)
        decoder.received.clear()
        for step, logits in enumerate(steps(decoder)):
            close(logits, expected[f"{name} {step}"], (name, *case))
            assert len({bits.tobytes() for bits in Group().gather(logits.numpy().copy())}) == 1
            if step == 0:
                check_volumes(decoder.received, CONFIGS[name], *case)


def check_volumes(received, config, mesh, layout, attention):
    planned = Counter()
    for each in collectives(shapes_of(config), layout, attention, mesh, len(TOKENS), 3):
        size = 1 if each.moves == "weight" and config is CONFIGS["grouped"] else 4
        twice = 2 if each.moves == "statistic" and config.norm == "layer" else 1  # the mean, then the mean square
        planned[each.where] += config.layers * twice * size * int(each.moved)
    moved = {name: count for name, count in received.items() if name not in ("embedding", "head", "logits")}
    assert moved == dict(planned), (mesh, layout, attention)


def check_tokens(folder):
    """Greedy tokens of `generate`, and those of weights gathered for the prompt only."""
    with np.load(f"{folder}/expected.npz") as file:
        expected = file["tokens"]
    decoder = ShardedDecoder(model("palm"), (2, 1, 1))
    got = generate(decoder, list(TOKENS), max_new_tokens=6)
    np.testing.assert_array_equal([each.tokens for each in got], expected)
    mesh = init_device_mesh("cpu", (2,))
    decoder = ShardedDecoder(model("palm"), mesh, "ws2d", "batch", prefill="wgxyz")
    assert decoder.mesh == (2, 1, 1)
    cache = decoder.cache(len(TOKENS), 12, page_size=4)
    sequences = [cache.new() for _ in TOKENS]
    following, got = TOKENS, []
    for _ in range(6):
        following = decoder(following, cache, sequences, last_only=True).argmax(1)[:, None]
        got.append(following)
    np.testing.assert_array_equal(torch.cat(got, 1), expected)


def check_loading(folder, monkeypatch):
    """Checkpoints, of which a process reads its part of every matrix, as one process has them."""
    from pykernels.inference.distributed import _sources

    counts = {"elements": 0}
    real = _sources.read

    def counted(stored, rows, columns, dtype):
        counts["elements"] += len(rows) * len(columns)
        return real(stored, rows, columns, dtype)

    for name, format, layout in product(CHECKPOINTS, (None, "int8"), ("ws1d", "wgx")):
        path = f"{folder}/{name}"
        whole = Decoder.load(path, weights=format)
        with monkeypatch.context() as patch:
            patch.setattr("pykernels.inference.distributed._resting.read", counted)
            counts["elements"] = 0
            decoder = ShardedDecoder.load(path, (2, 1, 1), layout, weights=format)
        matrices = {key: x for key, x in whole.weights.items() if len(x.shape) == 2}
        padding = decoder.config.vocab % 2 * decoder.config.width * (1 + (not decoder.config.tied))
        assert 2 * counts["elements"] == sum(np.prod(x.shape) for x in matrices.values()) + padding
        for got, expected in zip(steps(decoder), steps(whole), strict=True):
            close(got, expected, (name, format, layout))


def check_caches():
    """Sequences that are forked, truncated and freed; narrow caches and weights; nothing to do."""
    whole = model("palm")
    decoder = ShardedDecoder(whole, (1, 2, 1), "wgxy", "batch")
    cache = decoder.cache(4, 8)
    a, b = cache.new(), cache.new()
    decoder(TOKENS[:2, :4], cache, [a, b])
    c = cache.fork(b)
    cache.truncate(c, 2)
    cache.free(a)
    assert cache.sequences == [b, c] and a not in cache and cache.lengths([c, b]).tolist() == [2, 4]
    got = decoder(TOKENS[:2, 4:], cache, [c, b], last_only=True)
    close(got[0], whole.logits(np.r_[TOKENS[1, :2], TOKENS[0, 4:]][None])[0, -1], "fork")
    close(got[1], whole.logits(np.r_[TOKENS[1, :4], TOKENS[1, 4:]][None])[0, -1], "parent")
    assert decoder(TOKENS[:0], cache, []).shape == (0, 6, 37)
    close(decoder.logits(TOKENS[:3]), whole.logits(TOKENS[:3]), "without a cache")
    narrow = decoder.cache(2, 8, dtype="int8")
    close(decoder(TOKENS[:1], narrow, [narrow.new()]), whole.logits(TOKENS[:1]), "int8 cache", 0.02)
    half = Decoder(PALM, {name: torch.from_numpy(x).bfloat16() for name, x in whole.weights.items()})
    for got, expected in zip(steps(ShardedDecoder(half, (2, 1, 1))), steps(half), strict=True):
        close(got, expected.numpy(), "bfloat16", 0.02)


def check_refusals(rank):
    """Every process raises an error where one of them must, no cache changes, and the group works on."""
    whole = model("palm")
    decoder = ShardedDecoder(whole, (2, 1, 1), "wgx", "heads")
    cache = decoder.cache(2, 4)
    one, other = cache.new(), cache.new()
    elsewhere = ShardedDecoder(whole, (2, 1, 1)).cache(1, 4)
    bad = rank == 1
    made = {"layout": "ws2d", "attention": "batch"}
    for error, others, message, call in (
        (ValueError, RuntimeError, "tokens has 37", lambda: decoder([[37 * bad]], cache, [one])),
        (TypeError, RuntimeError, "dtype float64", lambda: decoder([[0.5] if bad else [0]], cache, [one])),
        (ValueError, RuntimeError, "expected one that is in", lambda: decoder([[0]], cache, [7 if bad else one])),
        (ValueError, RuntimeError, "cache has owner", lambda: decoder([[0]], elsewhere if bad else cache, [one])),
        (MemoryError, RuntimeError, "", lambda: decoder([[0] * 5], cache, [other])),
        (ValueError, ValueError, "tokens (checksum) differs", lambda: decoder([[0 + bad]], cache, [one])),
        (ValueError, ValueError, "number of tokens differs", lambda: decoder([[0] * (1 + bad)], cache, [one])),
        (ValueError, ValueError, "3 chips: expected 2", lambda: ShardedDecoder(whole, (3, 1, 1))),
        (ValueError, RuntimeError, "layout='2d'", lambda: ShardedDecoder(whole, (2, 1, 1), "2d" if bad else "ws2d")),
        (ValueError, ValueError, "the mesh", lambda: ShardedDecoder(whole, (2, 1, 1) if bad else (1, 2, 1))),
        (ValueError, ValueError, "weights in other", lambda: ShardedDecoder(whole, (2, 1, 1), prefill="ws1d", **made)),
        (ValueError, ValueError, "attention='batch'", lambda: ShardedDecoder(whole, (2, 1, 1), prefill="wgx")),
        (
            NotImplementedError,
            NotImplementedError,
            "expected 'row'",
            lambda: ShardedDecoder(whole.quantize("int8", "tensor"), (2, 1, 1)),
        ),
    ):
        with pytest.raises(error if bad else others) as caught:
            call()
        expected = "process 1 of the group refused" if others is RuntimeError and not bad else message
        assert expected in str(caught.value), caught.value
        assert cache.lengths([one, other]).tolist() == [0, 0]
    close(decoder(TOKENS[:2, :3], cache, [one, other]), whole.logits(TOKENS[:2, :3]), "after refusals")
