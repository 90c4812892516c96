"""Model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from ... import _options
from ._dtypes import CACHES, nbytes
from .volumes import Shapes


@dataclass(frozen=True)
class Model:
    """Shapes of a decoder, and what they cost.

    Parameters
    ----------
    name : how tables call it
    layers, width, hidden, heads, kv_heads, head_dim, vocab : the paper's n_layers, E, F, H, 1 (multi-query) to H
        (multi-head), d_head, and the tokens that the embedding knows
    gated : two matrices E x F into the feedforward (SwiGLU, GeGLU) or one
    parallel : attention and feedforward of one norm, added at once, or one after the other (section 3.4)
    tied : whether the embedding is the output matrix too
    window : None, or how many of the last tokens attention sees in `windowed_layers` of the layers (None: all)
    padded_heads : None, or more than `heads`, as they are laid out so that a number of chips divides them; the added
        ones are zeros that cost time and memory
    other_parameters : those of no matrix product: norms, biases, learned positions

    Raises TypeError and ValueError for numbers that are no positive integers, heads that `kv_heads` does not divide,
    and fewer padded heads than heads.

    Examples
    --------
    >>> from pykernels.inference.plan import Model
    >>> palm = Model.named("palm-540b")
    >>> f"{palm.parameters / 1e9:.2f} billion, {palm.cache_bytes(1, 'bf16')} bytes a token"
    '540.36 billion, 120832 bytes a token'
    >>> f"{(palm.with_heads(64).parameters - palm.parameters) / 1e9:.1f} billion more"
    '17.8 billion more'
    """

    name: str
    layers: int
    width: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    gated: bool = True
    parallel: bool = False
    tied: bool = True
    window: int | None = None
    windowed_layers: int | None = None
    padded_heads: int | None = None
    other_parameters: int = 0

    def __post_init__(self) -> None:
        for name in ("layers", "width", "hidden", "heads", "kv_heads", "head_dim", "vocab"):
            object.__setattr__(self, name, _options.integer(name, getattr(self, name), 1))
        _options.integer("other_parameters", self.other_parameters, 0)
        if self.heads % self.kv_heads:
            raise ValueError(f"kv_heads={self.kv_heads}: expected a divisor of heads={self.heads}")
        if self.window is not None:
            _options.integer("window", self.window, 1)
        if self.windowed_layers is not None:
            _options.integer("windowed_layers", self.windowed_layers, 0, self.layers)
        if self.padded_heads is not None:
            _options.integer("padded_heads", self.padded_heads, self.heads)
            if self.padded_heads % self.laid_kv_heads:
                raise ValueError(f"padded_heads={self.padded_heads}: expected a multiple of kv_heads={self.kv_heads}")

    @staticmethod
    def named(name: str) -> Model:
        """The model of that name, one of `Model.names()`; ValueError for others."""
        from ._named import named

        return named(name)

    @staticmethod
    def names() -> tuple[str, ...]:
        """The names that `Model.named` knows."""
        from ._named import names

        return names()

    @staticmethod
    def from_config(config: dict[str, Any] | str | Path, name: str | None = None) -> Model:
        """The shapes that a Hugging Face configuration describes.

        Parameters
        ----------
        config : a dictionary, or the path of a ``config.json`` or of a folder with one
        name : None for the one in the configuration, or the folder's

        `parameters` is what transformers counts in its causal language model, for the families falcon, gemma, gemma2,
        gpt2, gpt_bigcode, gptj, llama, mistral and qwen2. ValueError for other families and for missing or misshapen
        entries (named); OSError where there is no file.

        Examples
        --------
        >>> from pykernels.inference.plan import Model
        >>> shapes = dict(hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4)
        >>> Model.from_config(dict(model_type="llama", num_key_value_heads=2, vocab_size=100, **shapes)).parameters
        74560
        """
        from ._configs import from_config

        return from_config(config, name)

    def with_heads(self, heads: int) -> Model:
        """The same, with the query heads (and the keys' and values' of multi-head attention) padded to `heads`."""
        return replace(self, padded_heads=heads)

    @property
    def laid_heads(self) -> int:
        """Query heads as they are laid out: `padded_heads`, or `heads`."""
        return self.padded_heads or self.heads

    @property
    def laid_kv_heads(self) -> int:
        """Heads of keys and values as they are laid out: in multi-head attention they are padded with the queries'."""
        return self.laid_heads if self.kv_heads == self.heads else self.kv_heads

    @property
    def shapes(self) -> Shapes:
        """One block, heads as laid out, for `volumes`."""
        heads, kv_heads = self.laid_heads, self.laid_kv_heads
        return Shapes(self.width, self.hidden, heads, kv_heads, self.head_dim, self.gated, self.parallel)

    @cached_property
    def multiplied(self) -> int:
        """Parameters that each token is multiplied with, N of ``2 N`` FLOPs a token (section 2); `heads` unpadded.

        ``layers (3 E F + 2 E H d + 2 E H_kv d) + E vocab``, with 2 E F if not gated. Of an untied embedding only the
        output matrix counts: the other is a table.
        """
        return self._products(self.heads, self.kv_heads)

    @cached_property
    def parameters(self) -> int:
        """All parameters, heads as laid out: `multiplied`, an untied embedding, `other_parameters`."""
        table = 0 if self.tied else self.vocab * self.width
        return self._products(self.laid_heads, self.laid_kv_heads) + table + self.other_parameters

    def _products(self, heads: int, kv_heads: int) -> int:
        feedforward = (3 if self.gated else 2) * self.width * self.hidden
        attention = 2 * self.width * self.head_dim * (heads + kv_heads)
        return self.layers * (feedforward + attention) + self.vocab * self.width

    def cache_bytes(self, tokens: int, dtype: str = "bf16") -> int:
        """Bytes of the keys and values of one sequence of `tokens`: ``2 H_kv d`` numbers a layer and token.

        Layers with a window keep no more than it. The scales of an int8 cache are not counted: float32 for each token
        and head make 4 / head_dim of it.
        """
        numbers = 2 * self.laid_kv_heads * self.head_dim
        return round(self.kept(tokens) * numbers * nbytes(_options.choice("dtype", dtype, CACHES)))

    def kept(self, tokens: float) -> float:
        """Tokens in the caches of all layers together when a sequence has `tokens`."""
        return (self.layers - self.windows) * tokens + self.windows * min(tokens, self.window or tokens)

    @property
    def windows(self) -> int:
        """How many layers have a window."""
        if self.window is None:
            return 0
        return self.layers if self.windowed_layers is None else self.windowed_layers
