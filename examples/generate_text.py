"""A small decoder with int8 weights that continues three prompts of different lengths, and streams what it writes.

Tokens are bytes and the weights random, so that nothing is downloaded and the text is noise; `Decoder.load` reads a
real checkpoint.

    python examples/generate_text.py
"""

from __future__ import annotations

from pykernels.inference import Config, Decoder, Sampling, generate

PROMPTS = ("In the beginning", "Once upon a time there was", "42")


def write(
    layers: int = 8, width: int = 512, new: int = 64, prompts: tuple[str, ...] = PROMPTS
) -> tuple[list[bytes], list[bytes]]:
    """What each prompt became: as it was streamed, and as `generate` returned it."""
    heads = width // 64
    config = Config(
        vocab=256, layers=layers, width=width, hidden=4 * width, heads=heads, kv_heads=1, head_dim=64, block="parallel"
    )
    decoder = Decoder.random(config, dtype="bfloat16").quantize("int8")
    print(decoder)
    streamed = [bytearray() for _ in prompts]

    def show(number: int, token: int) -> None:
        streamed[number].append(token)
        print(f"{number}: {bytes(streamed[number])!r}")

    completions = generate(
        decoder,
        [list(prompt.encode()) for prompt in prompts],
        max_new_tokens=new,
        sampling=Sampling(temperature=0.8, top_k=40, top_p=0.95, seed=1),
        stop=[ord("\n"), list(b"The end")],
        on_token=show,
    )
    return [bytes(each) for each in streamed], [bytes(each.tokens.tolist()) for each in completions]


if __name__ == "__main__":
    write()
