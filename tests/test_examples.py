"""The examples run, and do what they say."""

from __future__ import annotations

import runpy
from pathlib import Path

import numba
import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture(autouse=True)
def one_thread():
    """Barriers of small kernels take long on a busy machine."""
    before = numba.get_num_threads()
    numba.set_num_threads(1)
    yield
    numba.set_num_threads(before)


def test_register_mesh():
    register = runpy.run_path(str(EXAMPLES / "register_mesh.py"))["register"]
    before, after = register()
    assert before > 0.5 and after < before / 3


def test_generate():
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers", minversion="5.4")
    compare = runpy.run_path(str(EXAMPLES / "generate.py"))["compare"]
    results = compare(width=64, heads=4, layers=1, prompt=16, new=8, batch=2)
    for first, _, tokens in results.values():
        assert first > 0 and tokens.shape == (2, 8) and torch.equal(tokens, results["eager"][2])


def test_generate_text():
    write = runpy.run_path(str(EXAMPLES / "generate_text.py"))["write"]
    streamed, returned = write(layers=1, width=64, new=8)
    assert streamed == returned and len(returned) == 3 and all(1 <= len(each) <= 8 for each in returned)
