"""The rules of the house: who imports whom, what is optional, what is importable under which name."""

from __future__ import annotations

import ast
import importlib
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

import pykernels
from pykernels import quant

PACKAGE = Path(pykernels.__file__).parent
DOCUMENTED = {
    "quant": ("_convert", "_quantize", "_tensor", "_matmul", "_delayed", "_linear"),
    "topk": ("_topk", "_approx", "_plan", "_recall"),
    "attention": ("_attention", "_varlen", "_merge", "_cache", "_decode", "_halo"),
    "tiered": ("_tiers", "_parameters", "_transform", "_descent", "_constants", "energy._forcefield"),
}
KERNELS = sorted((PACKAGE / "kernels").glob("**/*.py"))


def run(code: str, **environment: str) -> str:
    """The output of a fresh interpreter outside the repository's root, with the package on its path."""
    env = {**os.environ, "PYTHONPATH": str(PACKAGE.parent), **environment}
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, env=env, cwd="/", capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("path", KERNELS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_kernels_import_only_their_family_and_what_families_share(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            assert not any(alias.name.split(".")[0] in ("pykernels", "kernels") for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            assert (node.module or "").split(".")[0] not in ("pykernels", "kernels")
            if node.level == 2:
                assert node.module.startswith("_")
            assert node.level <= 2


def test_kernels_is_no_package_of_its_own():
    assert not (PACKAGE / "kernels" / "__init__.py").exists()


def test_base_install_needs_neither_torch_nor_triton():
    code = """
        import sys
        for name in ("torch", "triton", "safetensors", "matplotlib", "pytest"):
            sys.modules[name] = None
        import numpy as np
        from pykernels import quant
        q = quant.quantize(np.ones((4, 64), np.float32), "e4m3fn", granularity="mx")
        try:
            q.save("/nowhere")
        except NotImplementedError as error:
            assert "safetensors" in str(error)
        print(quant.encode(np.float32([1.0]), "e4m3fn").view(np.uint8)[0], q.dequantize().sum())
    """
    assert run(code) == "56 256.0"


def test_numpy_users_never_import_torch():
    code = "import sys, numpy; from pykernels import quant; quant.amax(numpy.ones(3)); print('torch' in sys.modules)"
    assert run(code) == "False"


@pytest.mark.parametrize("call", ["encode(x, 'e5m2').float()", "quantize(x, 'e5m2').scale", "amax(x)"])
def test_the_first_call_may_be_compiled(call):
    """Nothing has imported the torch half of the package before it is traced."""
    pytest.importorskip("torch")
    code = f"""
        import torch
        from pykernels import quant
        compiled = torch.compile(lambda x: quant.{call}, fullgraph=True, backend="aot_eager")
        x = torch.ones(4, 8)
        print(torch.equal(compiled(x), (lambda x: quant.{call})(x)))
    """
    assert run(code) == "True"


def test_import_survives_a_cache_that_cannot_be_written():
    code = "import numpy; from pykernels import quant; print(quant.amax(numpy.ones(3)))"
    assert run(code, NUMBA_CACHE_DIR="/proc/nowhere") == "1.0"


def test_spawned_processes_may_use_parallel_kernels():
    code = """
        import multiprocessing as mp, numpy as np
        from pykernels import quant

        def total(n):
            return float(quant.amax(np.full(n, 3.0, np.float32)))

        if __name__ == "__main__":
            total(1 << 20)
            with mp.get_context("spawn").Pool(2) as pool:
                print(pool.map(total, [1 << 20] * 2))
    """
    script = Path(os.environ.get("TMPDIR", "/tmp")) / f"pykernels_spawn_{os.getpid()}.py"
    script.write_text(textwrap.dedent(code))
    try:
        env = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
        done = subprocess.run([sys.executable, script], env=env, capture_output=True, text=True, timeout=300)
    finally:
        script.unlink()
    assert done.stdout.strip() == "[3.0, 3.0]", done.stderr


def test_thread_count_does_not_change_the_bytes():
    code = """
        import hashlib, numpy as np
        from pykernels import quant
        x = np.random.default_rng(0).standard_normal((1000, 1037)).astype(np.float32)
        digest = hashlib.sha256()
        for granularity in ("tensor", "row", "column", "mx", (16, 40)):
            q = quant.quantize(x, "e4m3fn", granularity=granularity, rounding="stochastic", seed=5)
            digest.update(np.ascontiguousarray(q.codes).view(np.uint8).tobytes())
        print(digest.hexdigest())
    """
    assert run(code, NUMBA_NUM_THREADS="1") == run(code, NUMBA_NUM_THREADS="2")


def test_cached_kernels_notice_edited_helpers(tmp_path):
    """Numba's disk cache alone looks only at the kernel's own file; see `kernels._numba.jit`."""
    house = tmp_path / "house"
    family = house / "family"
    family.mkdir(parents=True)
    (house / "__init__.py").write_text("")
    (family / "__init__.py").write_text("")
    (house / "_numba.py").write_text((PACKAGE / "kernels" / "_numba.py").read_text())
    (family / "main.py").write_text(
        "from .._numba import jit\nfrom .helper import step\n\n@jit\ndef kernel(x):\n    return step(x)\n"
    )
    answers = []
    for increment in (1, 20):
        (family / "helper.py").write_text(
            f"from .._numba import jit\n\n@jit\ndef step(x):\n    return x + {increment}\n"
        )
        code = "from house.family.main import kernel; print(kernel(1))"
        answers.append(run(code, PYTHONPATH=str(tmp_path), NUMBA_CACHE_DIR=str(tmp_path / "cache")))
    assert answers == ["2", "21"]


def test_doctests():
    import doctest

    for family, names in DOCUMENTED.items():
        for name in names:
            module = importlib.import_module(f"pykernels.{family}.{name}")
            done = doctest.testmod(module)
            assert done.attempted and not done.failed


def test_call_overhead_is_small():
    """A guard against regressions by a factor; the benchmark reports the number itself."""
    import timeit

    x = np.zeros(16, np.float32)
    quant.encode(x, "e4m3fn")
    assert min(timeit.repeat(lambda: quant.encode(x, "e4m3fn"), number=200, repeat=20)) / 200 < 100e-6
