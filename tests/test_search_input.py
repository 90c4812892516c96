"""Bad input of knn and maxsim: the exact exception, naming the argument, and nothing written."""

from __future__ import annotations

import re

import numpy as np
import pytest
from conftest import HAS_TORCH

from pykernels import quant
from pykernels.quant import QuantizedTensor
from pykernels.search import knn, maxsim

Q, X = np.ones((3, 4), np.float32), np.ones((6, 4), np.float32)
INT8 = QuantizedTensor(X.astype(np.int8), np.ones((6, 1), np.float32), "row")
COLUMNS = quant.quantize(X, "e4m3fn", granularity="column")
BLOCKS = quant.quantize(X, "e4m3fn", granularity=(2, 2))
MATRIX, PADDED = np.ones((2, 4), np.float32), np.ones((3, 5, 4), np.float32)
OFFSETS = [0, 2, 6]


def fresh(shape=(3, 2)):
    return np.empty(shape, np.float32), np.empty(shape, np.int64)


def read_only():
    out = fresh()
    out[1].flags.writeable = False
    return out


KNN = {
    "scalar": (ValueError, "queries has shape ()", lambda: knn(np.float32(1), X, 1)),
    "database 1-D": (ValueError, "database (4,)", lambda: knn(Q, X[0], 1)),
    "database 3-D": (ValueError, "database (1, 6, 4)", lambda: knn(Q, X[None], 1)),
    "dimensions": (ValueError, "queries has shape (3, 4) and database (6, 3)", lambda: knn(Q, X[:, :3], 1)),
    "no dimensions": (ValueError, "at least 1", lambda: knn(Q[:, :0], X[:, :0], 1)),
    "dtypes": (TypeError, "queries has dtype float32 and database float16", lambda: knn(Q, X.astype("f2"), 1)),
    "float64": (TypeError, "queries has dtype float64", lambda: knn(Q.astype("f8"), X, 1)),
    "database dtype": (TypeError, "database has dtype int64", lambda: knn(Q, X.astype("i8"), 1)),
    "lists": (TypeError, "queries has dtype float64", lambda: knn([[1.0]], X, 1)),
    "quantized queries": (TypeError, "int8 (QuantizedTensor)", lambda: knn(INT8, X, 1)),
    "formats": (TypeError, "database int8 (QuantizedTensor)", lambda: knn(quant.quantize(Q, "e4m3fn"), INT8, 1)),
    "plain and quantized": (TypeError, "queries has dtype int8", lambda: knn(Q.astype("i1"), INT8, 1)),
    "e5m2": (TypeError, "database is quantized to float8_e5m2", lambda: knn(Q, quant.quantize(X, "e5m2"), 1)),
    "blocks": (ValueError, "granularity (2, 2)", lambda: knn(Q, BLOCKS, 1)),
    "columns": (
        ValueError,
        "granularity 'column'",
        lambda: knn(Q, COLUMNS, 1),
    ),
    "row axis": (ValueError, "axis 0", lambda: knn(Q, quant.quantize(X, "e4m3fn", granularity="row", axis=0), 1)),
    "scale shape": (ValueError, "scales of shape (6,)", lambda: knn(Q, QuantizedTensor(INT8.codes, X[:, 0], "row"), 1)),
    "k negative": (ValueError, "k=-1", lambda: knn(Q, X, -1)),
    "k large": (ValueError, "k=7", lambda: knn(Q, X, 7)),
    "k type": (TypeError, "k=1.5", lambda: knn(Q, X, 1.5)),
    "metric": (ValueError, "metric='cos'", lambda: knn(Q, X, 1, metric="cos")),
    "metric type": (TypeError, "metric=2", lambda: knn(Q, X, 1, metric=2)),
    "recall zero": (ValueError, "recall_target=0", lambda: knn(Q, X, 1, recall_target=0)),
    "recall above one": (ValueError, "recall_target=1.1", lambda: knn(Q, X, 1, recall_target=1.1)),
    "recall nan": (ValueError, "recall_target=nan", lambda: knn(Q, X, 1, recall_target=float("nan"))),
    "recall type": (TypeError, "recall_target='all'", lambda: knn(Q, X, 1, recall_target="all")),
    "mask shape": (ValueError, "mask has shape (3,)", lambda: knn(Q, X, 1, mask=np.ones(3, bool))),
    "mask of all": (ValueError, "mask has shape (6, 3)", lambda: knn(Q, X, 1, mask=np.ones((6, 3), bool))),
    "mask dtype": (TypeError, "mask has dtype int64", lambda: knn(Q, X, 1, mask=np.ones(6, int))),
    "workspace": (ValueError, "workspace=1000", lambda: knn(Q, X, 1, workspace=1000)),
    "workspace type": (TypeError, "workspace=1000000.0", lambda: knn(Q, X, 1, workspace=1e6)),
    "oversampling": (ValueError, "oversampling=0", lambda: knn(Q, X, 1, rescore=X, oversampling=0)),
    "backend": (ValueError, "backend='tpu'", lambda: knn(Q, X, 1, backend="tpu")),
    "backend gpu": (NotImplementedError, "backend='gpu'", lambda: knn(Q, X, 1, backend="gpu")),
    "rescore shape": (ValueError, "rescore has shape (5, 4)", lambda: knn(Q, X, 1, rescore=X[:5])),
    "rescore dtype": (TypeError, "rescore has dtype float16", lambda: knn(Q, X, 1, rescore=X.astype("f2"))),
    "rescore queries": (TypeError, "queries has dtype float16", lambda: knn(Q.astype("f2"), X, 1, rescore=X)),
    "rescore int8": (TypeError, "expected a QuantizedTensor", lambda: knn(Q, X.astype("i1"), 1, rescore=X)),
    "out": (TypeError, "out is a ndarray", lambda: knn(Q, X, 2, out=np.empty((3, 2), "f4"))),
    "out of three": (TypeError, "out is a tuple", lambda: knn(Q, X, 2, out=(*fresh(), 0))),
    "out shape": (ValueError, "out[0] has shape (3, 3)", lambda: knn(Q, X, 2, out=(fresh((3, 3))[0], fresh()[1]))),
    "out dtype": (TypeError, "out[1] has dtype float32", lambda: knn(Q, X, 2, out=fresh()[:1] * 2)),
    "out read-only": (ValueError, "out[1] is read-only", lambda: knn(Q, X, 2, out=read_only())),
}

MAXSIM = {
    "queries 1-D": (ValueError, "queries has shape (4,)", lambda: maxsim(Q[0], X, document_offsets=OFFSETS)),
    "queries 4-D": (ValueError, "queries has shape (1, 1, 3, 4)", lambda: maxsim(Q[None, None], PADDED)),
    "documents 1-D": (ValueError, "documents (4,)", lambda: maxsim(Q, X[0], document_offsets=OFFSETS)),
    "dimensions": (ValueError, "documents (6, 3)", lambda: maxsim(Q, X[:, :3], document_offsets=OFFSETS)),
    "dtypes": (TypeError, "documents float16", lambda: maxsim(Q, X.astype("f2"), document_offsets=OFFSETS)),
    "float64": (TypeError, "float64", lambda: maxsim(Q.astype("f8"), X, document_offsets=OFFSETS)),
    "quantized": (TypeError, "documents int8 (QuantizedTensor)", lambda: maxsim(Q, INT8, document_offsets=OFFSETS)),
    "scales": (ValueError, "queries has granularity 'row'", lambda: maxsim(INT8, INT8, document_offsets=OFFSETS)),
    "no offsets": (ValueError, "document_offsets=None", lambda: maxsim(Q, X)),
    "offsets descend": (ValueError, "document_offsets", lambda: maxsim(Q, X, document_offsets=[0, 4, 3])),
    "offsets negative": (ValueError, "document_offsets", lambda: maxsim(Q, X, document_offsets=[-1, 4])),
    "offsets beyond": (ValueError, "at most 6", lambda: maxsim(Q, X, document_offsets=[0, 7])),
    "offsets empty": (ValueError, "has shape (0,)", lambda: maxsim(Q, X, document_offsets=np.zeros(0, int))),
    "offsets dtype": (TypeError, "document_offsets has dtype float64", lambda: maxsim(Q, X, document_offsets=[0.0, 6])),
    "offsets padded": (ValueError, "document_offsets", lambda: maxsim(Q, PADDED, document_offsets=OFFSETS)),
    "lengths packed": (
        ValueError,
        "document_lengths",
        lambda: maxsim(Q, X, document_offsets=OFFSETS, document_lengths=[2, 4]),
    ),
    "lengths shape": (ValueError, "has shape (2,)", lambda: maxsim(Q, PADDED, document_lengths=[5, 5])),
    "lengths beyond": (ValueError, "contains 6", lambda: maxsim(Q, PADDED, document_lengths=[5, 6, 0])),
    "lengths negative": (ValueError, "contains -1", lambda: maxsim(Q, PADDED, document_lengths=[5, -1, 0])),
    "mask shape": (ValueError, "document_mask has", lambda: maxsim(Q, PADDED, document_mask=np.ones((5, 3), bool))),
    "mask dtype": (TypeError, "document_mask has", lambda: maxsim(Q, PADDED, document_mask=np.ones((3, 5)))),
    "mask and lengths": (
        ValueError,
        "document_lengths was given with document_mask",
        lambda: maxsim(Q, PADDED, document_mask=np.ones((3, 5), bool), document_lengths=[1, 2, 3]),
    ),
    "query lengths": (ValueError, "query_lengths contains 4", lambda: maxsim(Q, PADDED, query_lengths=4)),
    "query lengths shape": (ValueError, "query_lengths has shape (1,)", lambda: maxsim(Q, PADDED, query_lengths=[3])),
    "query mask": (ValueError, "query_mask has shape (4,)", lambda: maxsim(Q, PADDED, query_mask=np.ones(4, bool))),
    "query mask and lengths": (
        ValueError,
        "query_lengths was given with query_mask",
        lambda: maxsim(Q, PADDED, query_mask=np.ones(3, bool), query_lengths=2),
    ),
    "k": (ValueError, "k=4", lambda: maxsim(Q, PADDED, k=4)),
    "k negative": (ValueError, "k=-1", lambda: maxsim(Q, PADDED, k=-1)),
    "k type": (TypeError, "k='1'", lambda: maxsim(Q, PADDED, k="1")),
    "backend": (ValueError, "backend='tpu'", lambda: maxsim(Q, PADDED, backend="tpu")),
    "out shape": (ValueError, "out has shape (3, 2)", lambda: maxsim(Q, PADDED, out=fresh()[0])),
    "out dtype": (TypeError, "out has dtype int64", lambda: maxsim(Q, PADDED, out=np.empty(3, int))),
    "out pair": (TypeError, "out is a ndarray", lambda: maxsim(Q, PADDED, k=2, out=np.empty(2, "f4"))),
    "out pair shape": (ValueError, "out[0] has shape (3, 2)", lambda: maxsim(Q, PADDED, k=2, out=fresh())),
}


@pytest.mark.parametrize("name", [f"knn, {name}" for name in KNN] + [f"maxsim, {name}" for name in MAXSIM])
def test_bad_input(name):
    function, case = name.split(", ", 1)
    error, text, call = {"knn": KNN, "maxsim": MAXSIM}[function][case]
    with pytest.raises(error, match=re.escape(text)) as raised:
        call()
    assert raised.type is error


def test_out_that_overlaps_is_refused_and_unchanged():
    memory = np.arange(24, dtype=np.float32)
    x = memory.reshape(6, 4)
    with pytest.raises(ValueError, match=r"out\[0\] shares memory with the input"):
        knn(Q, x, 2, out=(memory[:6].reshape(3, 2), np.empty((3, 2), np.int64)))
    with pytest.raises(ValueError, match="shares memory with the input"):
        maxsim(Q, x, document_offsets=OFFSETS, out=memory[:2])
    both = np.zeros(6, np.int64)
    with pytest.raises(ValueError, match=r"out\[0\] shares memory with out\[1\]"):
        knn(Q, x, 2, out=(both[:3].view(np.float32).reshape(3, 2), both.reshape(3, 2)))
    np.testing.assert_array_equal(memory, np.arange(24))


def test_nothing_is_written_when_an_argument_is_wrong():
    out = np.full((3, 2), np.nan, "f4"), np.full((3, 2), -5)
    for bad in ({"metric": "no"}, {"recall_target": 2}, {"workspace": 1}, {"mask": np.ones(5, bool)}):
        with pytest.raises(ValueError):
            knn(Q, X, 2, out=out, **bad)
    assert np.isnan(out[0]).all() and (out[1] == -5).all()


@pytest.mark.skipif(not HAS_TORCH, reason="torch is not installed")
def test_kinds_of_array_do_not_mix():
    import torch

    with pytest.raises(TypeError, match="queries and database are different kinds of array"):
        knn(torch.ones(3, 4), X, 1)
    with pytest.raises(TypeError, match="queries and documents are different kinds of array"):
        maxsim(Q, torch.ones(3, 5, 4))
    with pytest.raises(TypeError, match=r"out\[0\] is a ndarray"):
        knn(torch.ones(3, 4), torch.ones(6, 4), 2, out=fresh())
    with pytest.raises(TypeError, match="codes and scales of different kinds"):
        knn(torch.ones(3, 4), QuantizedTensor(torch.ones(6, 4, dtype=torch.int8), np.ones((6, 1), "f4"), "row"), 2)
    with pytest.raises(Exception, match="backend='reference'"):
        compiled = torch.compile(lambda q: knn(q, q, 1, backend="reference"), fullgraph=True, backend="aot_eager")
        compiled(torch.ones(3, 4))
