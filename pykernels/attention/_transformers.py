"""register_with_transformers."""

from __future__ import annotations

import inspect

NEEDED = "transformers 5.4 or newer"
RESERVED = ("eager", "sdpa", "flash", "flex")
"""Transformers takes names with these in them for its own."""


def register_with_transformers(name: str = "pykernels") -> None:
    """Make `attention` an attention implementation of Hugging Face transformers, under `name`.

    A model made or loaded with ``attn_implementation=name`` afterwards, or switched to it by
    ``model.set_attn_implementation(name)``, calls `pykernels.attention.attention` in its layers: in training and
    in inference, on the CPU and on GPUs, eagerly and under torch.compile, with the caches that
    ``model.generate`` makes. Key and value heads that query heads share are read where they are. Causal masks and
    sliding windows are not written out, and of padding only one row for each sequence is, or its length; masks of
    other patterns are (batch, 1, queries, keys) of bool, as for "sdpa". Soft caps of the logits, attention sinks
    and position biases are those of the model. Rows of the output that may attend to nothing, such as padding to
    the left of a sequence, are 0.

    Models that choose among classes by name, and not through transformers' AttentionInterface, cannot be switched;
    of these, Falcon is known here, and new Falcon models can be made.

    Parameters
    ----------
    name : an identifier without "eager", "sdpa", "flash" or "flex" in it

    Raises
    ------
    TypeError for a name that is no string; ValueError for one that is not accepted; ImportError without
    transformers 5.4 or newer. A model that drops attention weights out (in training, unless its configuration says
    ``attention_dropout=0``), asks for attention weights or masks heads raises NotImplementedError when it is called.

    Examples
    --------
    >>> from pykernels.attention import register_with_transformers
    >>> register_with_transformers()  # doctest: +SKIP
    >>> model = AutoModelForCausalLM.from_pretrained(path, attn_implementation="pykernels")  # doctest: +SKIP
    """
    if not isinstance(name, str):
        raise TypeError(f"name must be a string, not {type(name).__name__}")
    if not name.isidentifier() or any(word in name for word in RESERVED):
        raise ValueError(f"name={name!r}: expected an identifier with none of {', '.join(RESERVED)} in it")
    try:
        from transformers import AttentionInterface, AttentionMaskInterface, __version__
        from transformers.masking_utils import sdpa_mask
    except ImportError as error:
        raise ImportError(f"register_with_transformers needs {NEEDED}: {error}") from error
    if "q_length" not in inspect.signature(sdpa_mask).parameters:
        raise ImportError(f"register_with_transformers needs {NEEDED}, not {__version__}")
    from . import _transformers_falcon
    from ._transformers_forward import attention_forward
    from ._transformers_masks import make_mask

    AttentionInterface.register(name, attention_forward)
    AttentionMaskInterface.register(name, make_mask)
    _transformers_falcon.register(name)
