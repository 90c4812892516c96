"""Sharded decoders against one process. Processes are spawned, with Gloo."""

from __future__ import annotations

import doctest
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
import sharded_decoders as cases
import torch
from process_group import join, joined
from torch import distributed

import pykernels
from pykernels.inference import Decoder, generate
from pykernels.inference.distributed import ShardedDecoder, _decoder
from pykernels.inference.distributed.__main__ import SMALL

pytestmark = pytest.mark.skipif(not distributed.is_available(), reason="torch was built without distributed")


def work(rank, size, folder):
    with joined(rank, size, folder):
        cases.check_layouts(size, folder)
        if size == 2:
            cases.check_tokens(folder)
            cases.check_caches()
            cases.check_refusals(rank)
            cases.check_loading(folder, pytest.MonkeyPatch())


@pytest.mark.parametrize("size", [2, 4])
def test_every_process_has_the_logits_of_one(size, tmp_path, monkeypatch):
    expected = {f"{name} {i}": x for name in cases.CONFIGS for i, x in enumerate(cases.steps(cases.model(name)))}
    greedy = generate(cases.model("palm"), list(cases.TOKENS), max_new_tokens=6)
    np.savez(tmp_path / "expected.npz", tokens=[each.tokens for each in greedy], **expected)
    for name in cases.CHECKPOINTS:
        cases.write_checkpoint(tmp_path / name, name)
    for library in ("NUMBA", "OMP"):
        monkeypatch.setenv(f"{library}_NUM_THREADS", "1")  # threads that wait for work would slow the other processes
    torch.multiprocessing.spawn(work, (size, str(tmp_path)), nprocs=size)


def leave(rank, folder):
    """Process 1 is late for one decoder and ends in the middle of another's work; process 0 writes what it sees."""
    join(rank, 2, folder)
    decoder = ShardedDecoder(cases.model("palm"), (2, 1, 1), timeout=600)
    decoder.logits(cases.TOKENS)
    impatient = ShardedDecoder(cases.model("palm"), (2, 1, 1), timeout=3)
    for i, each in enumerate((impatient, decoder)):
        if rank == 1:
            if i == 1:
                os._exit(3)
            time.sleep(8)
            continue
        start = time.monotonic()
        try:
            each.logits(cases.TOKENS)
        except RuntimeError as error:
            Path(f"{folder}/seen{i}").write_text(f"{time.monotonic() - start} {error}")
    os._exit(0)


def test_when_a_process_is_late_or_ends_the_other_says_so(tmp_path):
    context = torch.multiprocessing.get_context("spawn")
    processes = [context.Process(target=leave, args=(rank, str(tmp_path))) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 3]
    for seen in ("seen0", "seen1"):
        seconds, message = (tmp_path / seen).read_text().split(" ", 1)
        assert float(seconds) < 20
        assert "among processes [0, 1]" in message


def test_torchrun(tmp_path):
    root = Path(pykernels.__file__).parent.parent
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "pykernels.inference.distributed", "--random", "--mesh", "2x1x1", "--layout", "ws2d"]
    command += [
        "--attention",
        "batch",
        "--prefill",
        "wgxyz",
        "--prompt",
        "1,2,3",
        "--prompt",
        "4,5",
        "--new-tokens",
        "5",
    ]
    environment = {**os.environ, "PYTHONPATH": str(root), "CUDA_VISIBLE_DEVICES": "", "NUMBA_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    expected = generate(Decoder.random(SMALL), [[1, 2, 3], [4, 5]], max_new_tokens=5)
    assert [list(map(int, line.split(","))) for line in done.stdout.split()] == [x.tokens.tolist() for x in expected]


def test_without_a_process_group():
    with pytest.raises(ValueError, match="init_process_group"):
        ShardedDecoder(cases.model("palm"), (1, 1, 1))


def test_doctests():
    assert doctest.testmod(_decoder).failed == 0
