"""How knn runs: memory, threads, torch, its compiler, and the GPU's kernels."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from conftest import HAS_TORCH, HAS_TRITON, run_threads
from search_oracle import DTYPES, METRICS, RNG, integers, tensor
from test_house import run

from pykernels import quant
from pykernels.search import knn


def test_workspace_does_not_change_the_result():
    q, x = RNG(0).standard_normal((300, 48), "f4"), RNG(1).standard_normal((30_000, 48), "f4")
    for metric in METRICS:
        small, large = (knn(q, x, 30, metric=metric, workspace=size) for size in (1 << 20, 1 << 28))
        np.testing.assert_array_equal(small[0], large[0])
        np.testing.assert_array_equal(small[1], large[1])


def test_peak_memory_is_the_inputs_and_the_workspace():
    """The score matrix alone would be 400 MB."""
    code = """
        import numpy as np
        from pykernels.search import knn

        def kilobytes(field):
            with open("/proc/self/status") as status:
                return int(next(line for line in status if line.startswith(field)).split()[1])

        rng = np.random.default_rng(0)
        q, x = (rng.standard_normal((n, 64), np.float32) for n in (1000, 100_000))
        allowed = rng.random(100_000) < 0.7
        for metric in ("ip", "l2", "cosine"):
            for mask in (None, allowed):
                knn(q, x[:20_000], 10, metric=metric, mask=mask if mask is None else mask[:20_000])
                try:
                    with open("/proc/self/clear_refs", "w") as file:
                        file.write("5")
                except OSError:
                    print(0)
                    continue
                before = kilobytes("VmRSS")
                knn(q, x, 10, metric=metric, mask=mask, workspace=16 << 20)
                print((kilobytes("VmHWM") - before) // 1024)
    """
    assert max(map(int, run(code).split())) <= 16 + 4


def test_threads_share_the_kernels():
    q, x = RNG(0).standard_normal((80, 32), "f4"), RNG(1).standard_normal((9000, 32), "f4")
    expected = {metric: knn(q, x, 10, metric=metric)[1] for metric in METRICS}
    wrong = []

    def work(metric):
        for _ in range(5):
            wrong.append((knn(q, x, 10, metric=metric)[1] != expected[metric]).sum())

    run_threads(*[partial(work, metric) for metric in METRICS])
    assert wrong == [0] * 15


def test_thread_count_does_not_change_the_bits():
    code = """
        import hashlib, numpy as np
        from pykernels.search import knn, maxsim
        rng = np.random.default_rng(0)
        q, x = (rng.standard_normal((n, 40), np.float32) for n in (70, 8000))
        digest = hashlib.sha256()
        for metric in ("ip", "l2", "cosine"):
            for mask in (None, rng.random(8000) < 0.5, rng.random((70, 8000)) < 0.5):
                for result in (*knn(q, x, 20, metric=metric, mask=mask), *knn(q[:1], x, 20, metric=metric)):
                    digest.update(result.tobytes())
        digest.update(maxsim(q, x, document_offsets=np.arange(0, 8001, 50)).tobytes())
        print(digest.hexdigest())
    """
    assert run(code, NUMBA_NUM_THREADS="1") == run(code, NUMBA_NUM_THREADS="2")


def test_base_install_and_lazy_torch():
    code = """
        import sys
        sys.modules["torch"] = sys.modules["triton"] = sys.modules["sklearn"] = None
        import numpy as np
        from pykernels.search import knn, maxsim
        x = np.eye(3, dtype=np.float32)
        print(knn(x, x, 1, metric="l2")[1].ravel(), maxsim(x, x, document_offsets=[0, 3]))
    """
    assert run(code) == "[0 1 2] [3.]"


torch_needed = pytest.mark.skipif(not HAS_TORCH, reason="torch is not installed")
triton_needed = pytest.mark.skipif(not HAS_TRITON, reason="torch and triton are not installed")


@torch_needed
@pytest.mark.parametrize("dtype", DTYPES)
def test_tensors_give_what_arrays_give(dtype):
    import torch

    q, x = integers((7, 30), dtype), integers((200, 30), dtype, 1)
    for metric in METRICS:
        for mask in (None, RNG(0).random(200) < 0.5):
            scores, ids = knn(q, x, 6, metric=metric, mask=mask)
            out = torch.full((7, 6), torch.nan), torch.zeros(7, 6, dtype=torch.int64)
            given_mask = mask if mask is None else torch.from_numpy(mask)
            assert knn(tensor(q), tensor(x), 6, metric=metric, mask=given_mask, out=out) is out
            np.testing.assert_array_equal(out[0].numpy(), scores)
            np.testing.assert_array_equal(out[1].numpy(), ids)
    grad = tensor(q).float().requires_grad_()
    assert not knn(grad, tensor(x).float(), 3)[0].requires_grad


COMPILED = {
    "plain": lambda q, x: knn(q * 2, x, 5, metric="l2"),
    "mask": lambda q, x: knn(q, x, 5, metric="cosine", mask=x[:, 0] > 0),
    "quantized": lambda q, x: knn(q, quant.quantize(x, "e4m3fn", granularity="row"), 5, recall_target=0.9),
    "rescored": lambda q, x: knn(q, x.bfloat16(), 5, rescore=x, oversampling=3),
}


@torch_needed
@pytest.mark.parametrize("name", COMPILED)
def test_compiles_without_a_graph_break(name):
    import torch

    torch.manual_seed(0)
    compiled = torch.compile(COMPILED[name], fullgraph=True, backend="aot_eager")
    for rows in (60, 61):
        q, x = torch.randn(2, 4, 16), torch.randn(rows, 16)
        for ours, expected in zip(compiled(q, x), COMPILED[name](q, x), strict=True):
            assert torch.equal(ours, expected)


@torch_needed
def test_operator_passes_opcheck():
    import torch

    from pykernels.search import _torch  # noqa: F401  registers it

    q, x = torch.randn(2, 3, 8), torch.randn(20, 8)
    arguments = (q, None, x, None, 4, "l2", torch.rand(20) > 0.3, None, 4, 1 << 20)
    torch.library.opcheck(torch.ops.pykernels.knn, arguments)


@triton_needed
@pytest.mark.parametrize("metric", METRICS)
def test_gpu_kernels(metric):
    shapes = {"float32": (5, 70, 20), "bfloat16": (17, 40, 16), "int8": (1, 33, 64), "e4m3fn": (2, 20, 16)}
    for number, (dtype, (count, rows, dim)) in enumerate(shapes.items()):
        q, x = (tensor(integers((n, dim), dtype, n)).to(_gpu()) for n in (count, rows))
        mask = (None, RNG(0).random(rows) < 0.5, RNG(0).random((count, rows)) < 0.5)[number % 3]
        expected = knn(q.cpu(), x.cpu(), 6, metric=metric, mask=mask, backend="reference")
        scores, ids = knn(q, x, 6, metric=metric, mask=mask, backend="gpu")
        np.testing.assert_allclose(scores.cpu(), expected[0], rtol=1e-5, atol=1e-5)
        if metric != "cosine":
            np.testing.assert_array_equal(ids.cpu(), expected[1])


def _gpu():
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def test_doctests():
    import doctest
    import importlib

    for name in ("_knn", "_maxsim"):
        assert doctest.testmod(importlib.import_module(f"pykernels.search.{name}")).failed == 0
