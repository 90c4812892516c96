"""quantize_module and the layer that it makes."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from .. import _options
from ..kernels.fp8.formats import SCALED_FORMATS
from ..kernels.linear.problem import FLOATS
from . import _calibration
from ._convert import amax
from ._layout import Granularity
from ._linear import linear
from ._quantize import quantize
from ._tensor import QuantizedTensor

Skip = str | Iterable[str] | Callable[[str, nn.Module], bool]


class QuantizedLinear(nn.Module):
    """A linear layer whose weight stays quantized: `linear` of its input, as a module.

    Attributes
    ----------
    codes, scale : buffers (N, K), and as QuantizedTensor has them; ``.to(dtype)`` leaves both as they are
    bias : None, or a parameter (N,)
    weight : the QuantizedTensor of the two
    granularity, input_format : as for `quantize` and `linear`
    in_features, out_features : K and N

    x, and with it the result, may be in float32, bfloat16 or float16, whatever the layer was made from.
    """

    def __init__(
        self, weight: QuantizedTensor, bias: nn.Parameter | None = None, *, input_format: str | None = None
    ) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.granularity = weight.granularity
        self.axis = weight.axis
        self.input_format = input_format
        self.register_buffer("codes", weight.codes)
        self.register_buffer("scale", weight.scale)
        self.bias = bias
        self._weight = weight

    @property
    def weight(self) -> QuantizedTensor:
        codes, scale = self._buffers["codes"], self._buffers["scale"]
        known = self._weight
        if torch.compiler.is_compiling():
            return QuantizedTensor(codes, scale, self.granularity, self.axis)
        if known.codes is not codes or known.scale is not scale:  # moved, or loaded
            self._weight = known = QuantizedTensor(codes, scale, self.granularity, self.axis)
        return known

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias, input_format=self.input_format)  # type: ignore[no-any-return]

    def extra_repr(self) -> str:
        dynamic = "" if self.input_format is None else f", input_format={self.input_format!r}"
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}, "
            f"format={self.weight.format!r}, granularity={self.granularity!r}{dynamic}"
        )

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        narrow = {id(x) for x in (self.codes, self.scale)}

        def move(x: Tensor) -> Tensor:
            moved: Tensor = fn(x)
            return x.to(moved.device) if id(x) in narrow and moved.dtype != x.dtype else moved

        return super()._apply(move, recurse)  # type: ignore[no-untyped-call]


def quantize_module(
    model: nn.Module,
    format: str = "int8",
    *,
    granularity: Granularity = "row",
    skip: Skip = (),
    calibration: str = "max",
    percentile: float = 99.9,
    input_format: str | None = None,
    tied: bool = False,
) -> nn.Module:
    """Replace the linear layers of a model by `QuantizedLinear`, in place.

    Layers are ``torch.nn.Linear`` and the ``Conv1D`` of Hugging Face transformers (GPT-2), whose weight is transposed;
    subclasses of these are left alone, since their owners may read the weight, as MultiheadAttention does.

    Parameters
    ----------
    model : a module in float32, bfloat16 or float16, on any device; ``copy.deepcopy`` it first to keep it
    format, granularity : as for `quantize`; rows are those of weights (N, K), one for each output
    skip : layers to leave as they are: names, or patterns of `fnmatch`, each of a layer or of a module that it is
        part of; or ``skip(name, layer) -> bool``
    calibration : what range of a block the codes span; the rest saturates
        "max": all of it. "percentile": the magnitudes up to the least that `percentile` % of them do not exceed; all,
        where that is 0. "mse": of 41 ranges from all of it to a fifth, that with the least squared error.
    percentile : in (0, 100]
    input_format : as for `linear`: None for weight-only layers, or a format that inputs are quantized to
    tied : whether to replace layers too whose weight is a parameter of another module, such as a head tied to the
        embedding. The other module keeps it: the two then no longer share memory, nor rounding.

    Returns
    -------
    The model, or the new layer for a model that is a linear layer itself. Results are deterministic. Gradients reach
    inputs and biases, not the weights.

    Raises
    ------
    ValueError for a model without linear layers to replace, a weight with NaN or Inf, an unknown option, "percentile"
    or "mse" with granularity "mx", and a name or pattern in `skip` that matches no linear layer; TypeError for
    arguments of wrong type and weights of another dtype; NotImplementedError for weights on the meta device. The model
    is as before then.

    Examples
    --------
    >>> import torch
    >>> from pykernels import quant
    >>> model = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 8))
    >>> quant.quantize_module(model, "int8", skip="2")[0]
    QuantizedLinear(in_features=64, out_features=32, bias=True, format='int8', granularity='row')
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model is a {type(model).__name__}: expected a torch.nn.Module")
    _options.choice("format", format, SCALED_FORMATS)
    if input_format is not None:
        _options.choice("input_format", input_format, SCALED_FORMATS)
    _calibration.check(calibration, percentile, granularity)
    quantize(torch.ones(1, 1), format, granularity=granularity)
    layers = _chosen(model, skip, tied)
    for name, layer in layers:
        _check(name, layer.weight)
    made: dict[int, QuantizedLinear] = {}
    for name, layer in layers:
        if id(layer) not in made:
            with torch.no_grad():
                weight = matrix(layer).contiguous()
                quantized = _calibration.calibrated(weight, format, granularity, calibration, percentile)
            made[id(layer)] = QuantizedLinear(quantized, layer.bias, input_format=input_format).train(layer.training)
        model = replace(model, name, made[id(layer)])
    unfuse(model)
    return model


def linear_layers(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """The layers that can be replaced, by all their names."""
    kinds: tuple[type, ...] = (nn.Linear,)
    transformers = sys.modules.get("transformers.pytorch_utils")
    if transformers is not None:
        kinds = (nn.Linear, transformers.Conv1D)
    for name, module in model.named_modules(remove_duplicate=False):
        if type(module) in kinds:
            yield name, module


def matrix(layer: Any) -> Tensor:
    """The weight of a linear layer as (N, K)."""
    weight: Tensor = layer.weight.detach()
    return weight if isinstance(layer, nn.Linear) else weight.T


def replace(model: nn.Module, name: str, layer: nn.Module) -> nn.Module:
    """Put `layer` where `name` is; the model, or `layer` for the name of the model itself."""
    if not name:
        return layer
    owner, _, attribute = name.rpartition(".")
    setattr(model.get_submodule(owner), attribute, layer)
    return model


def unfuse(model: nn.Module) -> None:
    """Keep torch's encoders from the fused paths of inference, which read the weights of their layers themselves."""
    for module in model.modules():
        if isinstance(module, nn.TransformerEncoderLayer):
            module.activation_relu_or_gelu = 0
        elif isinstance(module, nn.TransformerEncoder):
            module.use_nested_tensor = False


def _chosen(model: nn.Module, skip: Skip, tied: bool) -> list[tuple[str, Any]]:
    """The layers to replace."""
    layers = list(linear_layers(model))
    if not layers:
        raise ValueError("model has no torch.nn.Linear or Conv1D: expected at least one")
    if callable(skip):
        kept = [(name, layer) for name, layer in layers if not skip(name, layer)]
    else:
        patterns = (skip,) if isinstance(skip, str) else tuple(skip)
        for pattern in patterns:
            if not isinstance(pattern, str):
                raise TypeError(f"skip has {pattern!r}: expected names and patterns, or a function")
            if not any(_matches(name, pattern) for name, _ in layers):
                raise ValueError(
                    f"skip={pattern!r} matches no linear layer: expected one of the kind of {layers[0][0]!r}"
                )
        kept = [(name, layer) for name, layer in layers if not any(_matches(name, each) for each in patterns)]
    if not tied:
        owners = Counter(id(parameter) for module in model.modules() for parameter in module._parameters.values())
        kept = [(name, layer) for name, layer in kept if owners[id(layer.weight)] == 1]
    if not kept:
        raise ValueError("model has no linear layer left that is neither skipped nor tied: expected at least one")
    return kept


def _matches(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")


def _check(name: str, weight: Tensor) -> None:
    if weight.is_meta:
        raise NotImplementedError(f"layer {name!r} is on the meta device: expected numbers; see load_module")
    dtype = str(weight.dtype).removeprefix("torch.")
    if dtype not in FLOATS:
        raise TypeError(f"layer {name!r} has a weight in {dtype}: expected one of {', '.join(FLOATS)}")
    if not amax(weight.detach()).isfinite():
        raise ValueError(f"layer {name!r} has a weight with NaN or Inf: expected finite numbers")
