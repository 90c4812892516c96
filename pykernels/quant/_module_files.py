"""Models with quantized layers as safetensors files: save_module and load_module."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from .. import _options
from .._arrays import FLOAT8
from .._arrays_torch import dtype_of
from . import _files
from ._arguments import CODES
from ._layout import layout
from ._module import QuantizedLinear, linear_layers, matrix, replace, unfuse
from ._tensor import QuantizedTensor

KIND = "pykernels.QuantizedModule/1"
_E8M0 = dtype_of(FLOAT8["e8m0fnu"])


def save_module(model: nn.Module, path: str | os.PathLike[str]) -> None:
    """Write all parameters and buffers of a model that `quantize_module` made to a safetensors file.

    Codes, and scales of powers of two, are kept as bytes; what belongs to which layer, and which names share a tensor,
    as JSON in the metadata. Buffers that are not persistent are kept too, for models made on the meta device.

    Raises
    ------
    TypeError for what is no module; ValueError for a model without a QuantizedLinear, and for tensors on the meta
    device; NotImplementedError without safetensors.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model is a {type(model).__name__}: expected a torch.nn.Module")
    layers = {name: each for name, each in _modules(model) if isinstance(each, QuantizedLinear)}
    if not layers:
        raise ValueError("model has no QuantizedLinear: expected one that quantize_module made")
    narrow = {part for name in layers for part in _parts(name)}
    tensors: dict[str, Tensor] = {}
    shared: dict[str, str] = {}
    first: dict[Any, str] = {}
    for name, tensor in _tensors(model):
        if tensor.is_meta:
            raise ValueError(f"{name} is on the meta device: expected numbers")
        same = (tensor.device, tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride())
        if first.setdefault(same, name) != name:
            shared[name] = first[same]
            continue
        tensor = tensor.detach().cpu()
        tensors[name] = tensor.view(torch.uint8) if name in narrow and tensor.itemsize == 1 else tensor
    described = {
        name: {"format": layer.weight.format, "granularity": layer.granularity, "input_format": layer.input_format}
        for name, layer in layers.items()
    }
    metadata = {"kind": KIND, "layers": json.dumps(described), "shared": json.dumps(shared)}
    _files._safetensors()
    from safetensors.torch import save_file

    save_file(_apart(tensors), os.fspath(path), metadata=metadata)


def load_module(model: nn.Module, path: str | os.PathLike[str]) -> nn.Module:
    """Fill a model of the same architecture, of floating-point numbers, from a file of `save_module`, in place.

    Its linear layers become those of the file, and the other parameters and buffers take the file's numbers: in their
    own dtypes and on their own devices; or, those on the meta device, in the file's dtypes and on the CPU, tied where
    they are tied. Returns the model, or the new layer for a model that is a linear layer itself.

    Raises
    ------
    ValueError for a file that is not one of `save_module`, and for tensors that are missing, extra or misshapen, all
    of which it names; TypeError for what is no module; NotImplementedError without safetensors. The model is as
    before then.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model is a {type(model).__name__}: expected a torch.nn.Module")
    _files._safetensors()
    from safetensors import SafetensorError, safe_open

    path = os.fspath(path)
    try:
        opened = safe_open(path, framework="pt")
    except SafetensorError as error:
        raise ValueError(f"path={path!r} is not a safetensors file: {error}") from None
    with opened as file:
        layers, shared = _described(file.metadata() or {}, path)
        _check(model, file, layers, shared, path)
        old = {name: model.get_submodule(name) for name in layers}
        made: dict[int, QuantizedLinear] = {}
        for name, described in layers.items():
            if id(old[name]) not in made:
                codes, scale = (file.get_tensor(shared.get(each, each)) for each in _parts(name))
                made[id(old[name])] = _layer(old[name], codes, scale, described)
            model = replace(model, name, made[id(old[name])])
        _fill(model, file, layers, shared)
    unfuse(model)
    return model


def _described(metadata: dict[str, str], path: str) -> tuple[dict[str, Any], dict[str, str]]:
    """What a file says of its layers, and which names stand for others."""
    kind = metadata.get("kind")
    if kind != KIND:
        raise ValueError(f"path={path!r} has kind {kind!r} in its metadata: expected {KIND!r}, as save_module writes")
    try:
        layers, shared = json.loads(metadata["layers"]), json.loads(metadata["shared"])
        for described in layers.values():
            granularity = described["granularity"]
            described["granularity"] = granularity if isinstance(granularity, str) else tuple(granularity)
            _options.choice("format", described["format"], CODES)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"path={path!r} has metadata that save_module does not write: {error!r}") from None
    return layers, shared


def _check(model: nn.Module, file: Any, layers: dict[str, Any], shared: dict[str, str], path: str) -> None:
    """Refuse a file that has not what the model needs, or more."""
    found = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    found |= {name: found[source] for name, source in shared.items() if source in found}
    here = {name: tuple(matrix(layer).shape) for name, layer in linear_layers(model)}
    here |= {name: each.weight.shape for name, each in _modules(model) if isinstance(each, QuantizedLinear)}
    unknown = [name for name in layers if name not in here]
    if unknown:
        raise ValueError(f"model has no linear layers {', '.join(map(repr, unknown))}, which path={path!r} has")
    expected = {name: tuple(x.shape) for name, x in _tensors(model) if not _is_weight(name, layers)}
    for name, described in layers.items():
        codes, scale = _parts(name)
        expected[codes], expected[scale] = here[name], layout(here[name], described["granularity"], -1).scale_shape
        for part, kinds in ((codes, ("U8",)), (scale, ("U8", "F32"))):
            if part in found and file.get_slice(shared.get(part, part)).get_dtype() not in kinds:
                raise ValueError(f"path={path!r} has {part} of another dtype: expected {' or '.join(kinds)}")
    for name in _computed(model):
        for each in (found, expected):
            each.pop(name, None)
    _options.check_shapes(expected, found, f"path={path!r} and the model differ in tensors")


def _layer(old: nn.Module, codes: Tensor, scale: Tensor, described: dict[str, Any]) -> QuantizedLinear:
    """The layer of a file that takes the place of `old`."""
    codes = codes.view(dtype_of(CODES[described["format"]]))
    scale = scale.view(_E8M0) if scale.dtype is torch.uint8 else scale
    known: Any = old.codes if isinstance(old, QuantizedLinear) else old.weight
    device = "cpu" if known.is_meta else known.device
    weight = QuantizedTensor(codes.to(device), scale.to(device), described["granularity"])
    bias: Any = old.bias
    return QuantizedLinear(weight, bias, input_format=described.get("input_format")).train(old.training)


@torch.no_grad()
def _fill(model: nn.Module, file: Any, layers: dict[str, Any], shared: dict[str, str]) -> None:
    """Take over all but the weights of `layers`; parameters on the meta device are replaced, and stay tied."""
    computed = _computed(model)
    made: dict[int, Tensor] = {}
    for name, tensor in list(_tensors(model)):
        if name in computed or _is_weight(name, layers):
            continue
        value = file.get_tensor(shared.get(name, name))
        if not tensor.is_meta:
            tensor.copy_(value)
            continue
        if isinstance(tensor, nn.Parameter):
            value = nn.Parameter(value, requires_grad=tensor.requires_grad)
        owner, _, attribute = name.rpartition(".")
        setattr(model.get_submodule(owner), attribute, made.setdefault(id(tensor), value))


def _modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    yield from model.named_modules(remove_duplicate=False)


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """All parameters and buffers, by all of their names."""
    yield from model.named_parameters(remove_duplicate=False)
    yield from model.named_buffers(remove_duplicate=False)


def _computed(model: nn.Module) -> set[str]:
    """Buffers that the model has made itself: those that are not persistent and hold numbers."""
    buffers = dict(model.named_buffers(remove_duplicate=False))
    transient = {_joined(name, buffer) for name, each in _modules(model) for buffer in each._non_persistent_buffers_set}
    return {name for name, buffer in buffers.items() if name in transient and not buffer.is_meta}


def _is_weight(name: str, layers: dict[str, Any]) -> bool:
    """Whether a tensor is the weight of one of the layers, or part of it."""
    owner, _, attribute = name.rpartition(".")
    return owner in layers and attribute in ("weight", "codes", "scale")


def _parts(layer: str) -> tuple[str, str]:
    """The names of the codes and the scale of a layer."""
    return _joined(layer, "codes"), _joined(layer, "scale")


def _joined(module: str, name: str) -> str:
    return f"{module}.{name}" if module else name


def _apart(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Dense tensors, each with memory of its own."""
    taken: set[int] = set()
    result = {}
    for name, tensor in tensors.items():
        dense = tensor.contiguous()
        memory = dense.untyped_storage()
        if memory.nbytes() != dense.nbytes or memory.data_ptr() in taken:
            dense = dense.clone()
        taken.add(dense.untyped_storage().data_ptr())
        result[name] = dense
    return result
