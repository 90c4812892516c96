"""Files of quantized tensors, and quantized tensors of int8 codes."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import as_bytes

from pykernels import quant
from pykernels.kernels.fp8 import cases
from pykernels.kernels.fp8.formats import FORMATS


@pytest.mark.parametrize("granularity", ["tensor", "mx", (4, 8)])
@pytest.mark.parametrize("format", FORMATS)
def test_files_keep_everything(tmp_path, format, granularity):
    pytest.importorskip("safetensors")
    q = quant.quantize(cases.mixed((40, 70), "float32"), format, granularity=granularity, axis=0)
    q.save(tmp_path / "q.safetensors")
    again = quant.QuantizedTensor.load(tmp_path / "q.safetensors")
    assert (again.format, again.granularity, again.axis) == (format, granularity, 0)
    np.testing.assert_array_equal(as_bytes(again.codes), as_bytes(q.codes))
    assert again.scale.dtype == q.scale.dtype
    np.testing.assert_array_equal(again.dequantize(), q.dequantize())


def test_foreign_files_are_refused(tmp_path):
    numpy = pytest.importorskip("safetensors.numpy")
    (tmp_path / "text").write_text("not a tensor file")
    numpy.save_file({"codes": np.zeros(3, np.uint8)}, tmp_path / "foreign")
    for name in ("text", "foreign"):
        with pytest.raises(ValueError, match=name):
            quant.QuantizedTensor.load(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        quant.QuantizedTensor.load(tmp_path / "absent")
    with pytest.raises(ValueError, match="framework"):
        quant.QuantizedTensor.load(tmp_path / "text", framework="jax")


@pytest.mark.parametrize(
    ("granularity", "shape"), [("tensor", ()), ("row", (5, 1)), ("column", (1, 7)), ((1, 4), (5, 2)), ((5, 7), (1, 1))]
)
def test_int8_codes(tmp_path, granularity, shape):
    pytest.importorskip("safetensors")
    random = np.random.default_rng(0)
    codes = random.integers(-128, 128, (5, 7), np.int8)
    scale = random.random(shape, np.float32) + np.float32(0.5)
    q = quant.QuantizedTensor(codes, scale, granularity)
    assert q.format == "int8"
    wide = scale.repeat(4, axis=1)[:, :7] if granularity == (1, 4) else scale
    np.testing.assert_array_equal(q.dequantize(), codes.astype(np.float32) * wide)
    q.save(tmp_path / "q.safetensors")
    again = quant.QuantizedTensor.load(tmp_path / "q.safetensors")
    assert (again.format, again.granularity, again.codes.dtype) == ("int8", granularity, np.int8)
    np.testing.assert_array_equal(again.codes, codes)
    np.testing.assert_array_equal(again.scale, scale)
