"""Files of an `Index`: whole, tampered, damaged and foreign ones."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from conftest import HAS_TORCH

from pykernels import quant
from pykernels.search import Index

if HAS_TORCH:
    pass

from index_oracle import DTYPES, METRICS, RNG, integers, same, state

safetensors = pytest.importorskip("safetensors.numpy")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("metric", METRICS)
def test_files_hold_the_whole_index(tmp_path, metric, dtype):
    path = tmp_path / "index.safetensors"
    index = Index(5, metric=metric, dtype=dtype)
    index.add(RNG.standard_normal((20, 5)) + 30, ids=RNG.permutation(100)[:20])
    index.remove(index.ids[3:7])
    index.save(path)
    index.update(index.ids[:2], RNG.standard_normal((2, 5)))
    index.save(path)
    for device in (None, "cpu") if HAS_TORCH else (None,):
        loaded = Index.load(path, device=device)
        assert (loaded.dim, loaded.metric, loaded.dtype) == (5, metric, dtype)
        same(state(loaded), state(index))
        loaded.add(np.ones((3, 5)))
    index.add(np.ones((3, 5)))
    same(state(loaded), state(index))
    assert [entry.name for entry in tmp_path.iterdir()] == ["index.safetensors"]


def saved(path, dtype="float32", metric="l2"):
    index = Index(3, metric=metric, dtype=dtype)
    index.add(integers(6, 3) + 0.5)
    index.save(path)
    return safetensors.load_file(path)


def rewrite(path, parts, **described):
    about = {"dim": 3, "metric": "l2", "dtype": "float32", "next_id": 6, **described}
    metadata = {"kind": "pykernels.search.Index/1", "index": json.dumps(about)}
    safetensors.save_file(parts, path, metadata=metadata)


TAMPERED = {
    "next id": (lambda p: None, {"next_id": 5}, "next_id is 5"),
    "next id type": (lambda p: None, {"next_id": 7.0}, "next_id is 7.0"),
    "dim": (lambda p: None, {"dim": 4}, "centre has shape (3,), expected (4,)"),
    "dim type": (lambda p: None, {"dim": "3"}, "dim='3'"),
    "dim size": (lambda p: None, {"dim": 10**30}, "dim="),
    "metric": (lambda p: None, {"metric": "dot"}, "metric='dot'"),
    "dtype": (lambda p: None, {"dtype": "float16"}, "it holds"),
    "dtype list": (lambda p: None, {"dtype": ["float32"]}, "dtype="),
    "no ids": (lambda p: p.pop("ids"), {}, "'ids'"),
    "no centre": (lambda p: p.pop("centre"), {}, "it holds"),
    "extra": (lambda p: p.update(more=np.ones(3)), {}, "it holds"),
    "repeated ids": (lambda p: p["ids"].fill(1), {}, "more than once"),
    "negative ids": (lambda p: p["ids"].__setitem__(2, -5), {}, "-5"),
    "few ids": (lambda p: p.update(ids=p["ids"][:5].copy()), {}, "vectors has shape"),
    "id matrix": (lambda p: p.update(ids=p["ids"].reshape(2, 3)), {}, "ids has shape"),
    "id dtype": (lambda p: p.update(ids=p["ids"].astype(np.int32)), {}, "it holds"),
    "nan": (lambda p: p["vectors"].__setitem__((4, 1), np.nan), {}, "in row 4"),
    "inf centre": (lambda p: p["centre"].fill(np.inf), {}, "centre is not finite"),
    "vector shape": (lambda p: p.update(vectors=p["vectors"][0].copy()), {}, "vectors has shape"),
}


@pytest.mark.parametrize("case", TAMPERED)
def test_tampered_files_are_refused(tmp_path, case):
    path = tmp_path / "index"
    change, described, message = TAMPERED[case]
    parts = saved(path)
    change(parts)
    rewrite(path, parts, **described)
    with pytest.raises(ValueError, match=f"(?s)path='.*index' does not hold an Index: .*{re.escape(message)}"):
        Index.load(path)


@pytest.mark.parametrize(
    ("dtype", "name", "value", "message"),
    [
        ("int8", "vectors", -128, "the code -128"),
        ("e4m3fn", "vectors", 0xFF, "the code of a NaN"),
        ("int8", "factor", 0, "a scale that is not positive"),
        ("e4m3fn", "factor", np.inf, "a scale that is not positive"),
        ("bfloat16", "vectors", 0x7F80, "NaN, Inf or too large"),
    ],
)
def test_tampered_codes_are_refused(tmp_path, dtype, name, value, message):
    path = tmp_path / "index"
    parts = saved(path, dtype)
    parts[name][3] = value
    rewrite(path, parts, dtype=dtype)
    with pytest.raises(ValueError, match=f"in row 3, .*{message}"):
        Index.load(path)


def test_damaged_and_foreign_files_are_refused(tmp_path):
    path = tmp_path / "index"
    saved(path)
    whole = path.read_bytes()
    for size in (0, 1, 7, 8, 9, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match="path="):
            Index.load(path)
    for seed in range(20):
        path.write_bytes(np.random.default_rng(seed).bytes(400))
        with pytest.raises(ValueError, match="path="):
            Index.load(path)
    quant.quantize(integers(4, 4), "e4m3fn", granularity="row").save(path)
    with pytest.raises(ValueError, match=re.escape("kind 'pykernels.QuantizedTensor/1'")):
        Index.load(path)
    safetensors.save_file({"x": np.ones(3)}, path)
    with pytest.raises(ValueError, match="kind None"):
        Index.load(path)
    for described in ("", "[]", "3", "{}", "[" * 100_000):
        safetensors.save_file({"ids": np.ones(3)}, path, metadata={"kind": _kind(), "index": described})
        with pytest.raises(ValueError, match="does not hold an Index"):
            Index.load(path)
    with pytest.raises(FileNotFoundError):
        Index.load(tmp_path / "nothing")
    with pytest.raises(OSError, match="directory"):
        Index.load(tmp_path)


def _kind():
    from pykernels.search._index_files import KIND

    return KIND


def test_a_save_that_fails_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "index"
    saved(path)
    before = path.read_bytes()

    def fail(parts, name, metadata):
        with open(name, "wb") as file:
            file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(safetensors, "save_file", fail)
    with pytest.raises(OSError, match="disk full"):
        Index(3).save(path)
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1
