"""Generate from a checkpoint on the processes that torchrun starts; see `pykernels.inference.distributed`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence

import torch
from torch import distributed

from .. import Config, Decoder
from ..plan.volumes import ATTENTION, LAYOUTS
from ._decoder import ShardedDecoder

SMALL = Config(vocab=256, layers=2, width=64, hidden=128, heads=4, kv_heads=1, head_dim=16, block="parallel")


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    nccl = distributed.is_nccl_available() and torch.cuda.device_count() >= int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    if nccl:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    distributed.init_process_group("nccl" if nccl else "gloo")
    try:
        tokens = _generated(options)
        if distributed.get_rank() == 0:
            for row in tokens:
                print(",".join(map(str, row)), flush=True)
    except (ValueError, TypeError, NotImplementedError, OSError, MemoryError, RuntimeError) as error:
        print(f"process {distributed.get_rank()}: {error}", file=sys.stderr, flush=True)
        return 1
    finally:
        distributed.destroy_process_group()
    return 0


def _generated(options: argparse.Namespace) -> list[list[int]]:
    """The most probable tokens after each prompt."""
    named = {"prefill": options.prefill, "timeout": options.timeout}
    if options.random:
        model = Decoder.random(SMALL, dtype=options.dtype or "float32")
        if options.weights:
            model = model.quantize(options.weights)
        decoder = ShardedDecoder(model, options.mesh, options.layout, options.attention, **named)
    else:
        named |= {"dtype": options.dtype, "weights": options.weights}
        decoder = ShardedDecoder.load(options.checkpoint, options.mesh, options.layout, options.attention, **named)
    prompts, count = options.prompt, options.new_tokens
    cache = decoder.cache(len(prompts), max(map(len, prompts)) + count)
    sequences = [cache.new() for _ in prompts]
    first = [decoder([prompt], cache, [one], last_only=True) for prompt, one in zip(prompts, sequences, strict=True)]
    steps = [torch.cat(first).argmax(1)]
    while len(steps) < count:
        steps.append(decoder(steps[-1][:, None], cache, sequences, last_only=True).argmax(1))
    rows: list[list[int]] = torch.stack(steps, 1).tolist()
    return rows


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="torchrun --nproc-per-node N -m pykernels.inference.distributed",
        description="Continue prompts of token ids by the most probable tokens. "
        "Process 0 prints these, a line for each.",
    )
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument("--checkpoint", metavar="DIR", help="a folder that Decoder.load reads")
    model.add_argument("--random", action="store_true", help="a small decoder with random weights")
    parser.add_argument("--mesh", type=_integers("x", 3), required=True, metavar="XxYxZ", help="N processes")
    parser.add_argument("--layout", choices=LAYOUTS, default="ws2d", help="default: %(default)s")
    parser.add_argument("--attention", choices=ATTENTION, default="heads", help="default: %(default)s")
    parser.add_argument("--prefill", choices=LAYOUTS, help="the layout for prompts (default: that of --layout)")
    parser.add_argument("--prompt", type=_integers(","), action="append", required=True, metavar="ID,ID,...")
    parser.add_argument("--new-tokens", type=_positive, default=16, metavar="N", help="default: %(default)s")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), help="default: the checkpoint's")
    parser.add_argument("--weights", help="the format to quantize weights to: int8, e4m3fn, ...")
    parser.add_argument("--timeout", type=float, default=60.0, metavar="SECONDS", help="default: %(default)s")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def _integers(separator: str, count: int | None = None) -> Callable[[str], tuple[int, ...]]:
    def integers(text: str) -> tuple[int, ...]:
        numbers = tuple(map(int, text.split(separator)))
        if count not in (None, len(numbers)):
            raise ValueError
        return numbers

    return integers


if __name__ == "__main__":
    sys.exit(main())
