"""The registry of families: what the command line lists, checks and measures."""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

BACKENDS = ("reference", "cpu", "gpu")


class Check(NamedTuple):
    """One comparison of a backend with the reference; `run` returns (values compared, mismatches)."""

    operation: str
    case: str
    backend: str
    run: Callable[[], tuple[int, int]]


class Paper(NamedTuple):
    """A source of a family; `identifier` is an arXiv number or the name of a specification."""

    title: str
    identifier: str


class Family(NamedTuple):
    """A family of kernels: its public module, and the module whose `checks` yields its `Check`s.

    ``checks(exhaustive: bool, backends: Sequence[str]) -> Iterable[Check]``
    """

    name: str
    summary: str
    module: str
    functions: tuple[str, ...]
    papers: tuple[Paper, ...]
    check_module: str

    def checks(self, exhaustive: bool, backends: Sequence[str]) -> Iterable[Check]:
        checks: Iterable[Check] = importlib.import_module(self.check_module).checks(exhaustive, backends)
        return checks


FAMILIES = {
    family.name: family
    for family in (
        Family(
            name="fp8",
            summary="FP8 and int8 conversion, scaling and quantization",
            module="pykernels.quant",
            functions=(
                "encode",
                "decode",
                "amax",
                "quantize",
                "quantize_dequantize",
                "scaled_matmul",
                "QuantizedTensor",
                "DelayedScaling",
            ),
            papers=(
                Paper("FP8 Formats for Deep Learning", "arXiv 2209.05433"),
                Paper("OCP 8-bit Floating Point Specification (OFP8) 1.0", "OCP OFP8"),
                Paper("OCP Microscaling Formats (MX) Specification 1.0", "OCP MX"),
            ),
            check_module="pykernels.quant.checks",
        ),
        Family(
            name="topk",
            summary="top-k selection, exact or of known expected recall",
            module="pykernels.topk",
            functions=("topk", "approx_max_k", "approx_min_k", "plan", "expected_recall", "RecallPlan"),
            papers=(
                Paper("TPU-KNN: K Nearest Neighbor Search at Peak FLOP/s", "arXiv 2206.14286"),
                Paper("A Faster Generalized Two-Stage Approximate Top-K", "arXiv 2506.04165"),
            ),
            check_module="pykernels.topk.checks",
        ),
        Family(
            name="search",
            summary="brute-force nearest neighbours, and late interaction",
            module="pykernels.search",
            functions=("knn", "Index", "maxsim", "sharded_knn"),
            papers=(
                Paper("TPU-KNN: K Nearest Neighbor Search at Peak FLOP/s", "arXiv 2206.14286"),
                Paper("ColBERT: Efficient and Effective Passage Search via Late Interaction", "arXiv 2004.12832"),
                Paper("Neural Approaches to Multilingual Information Retrieval", "arXiv 2209.01335"),
            ),
            check_module="pykernels.search.checks",
        ),
        Family(
            name="tiered",
            summary="the tiered tensor transform, molecular energies, and conformations from them",
            module="pykernels.tiered",
            functions=(
                "transform",
                "transform_backward",
                "Tiers",
                "Parameters",
                "Descent",
                "energy.ForceField",
                "generate",
                "screen",
            ),
            papers=(
                Paper(
                    "Protein-Ligand Complex Generator & Drug Screening via Tiered Tensor Transform", "arXiv 2301.00984"
                ),
                Paper("Adam: A Method for Stochastic Optimization", "arXiv 1412.6980"),
                Paper("AutoDock Vina: Improving the Speed and Accuracy of Docking", "doi 10.1002/jcc.21334"),
                Paper("Merck Molecular Force Field I-V", "doi 10.1002/(SICI)1096-987X(199604)17:5/6"),
            ),
            check_module="pykernels.tiered.checks",
        ),
        Family(
            name="attention",
            summary="multi-query, grouped-query and halo attention, and caches of keys and values",
            module="pykernels.attention",
            functions=(
                "attention",
                "attention_varlen",
                "merge",
                "KVCache",
                "decode",
                "halo_attention",
                "register_with_transformers",
            ),
            papers=(
                Paper("Fast Transformer Decoding: One Write-Head is All You Need", "arXiv 1911.02150"),
                Paper("GQA: Training Generalized Multi-Query Transformer Models", "arXiv 2305.13245"),
                Paper("FlashAttention: Fast and Memory-Efficient Exact Attention", "arXiv 2205.14135"),
                Paper("Scaling Local Self-Attention for Parameter Efficient Visual Backbones", "arXiv 2103.12731"),
            ),
            check_module="pykernels.attention.checks",
        ),
        Family(
            name="linear",
            summary="linear layers with int8, FP8 or floating-point weights",
            module="pykernels.quant",
            functions=("linear", "quantize_module", "save_module", "load_module"),
            papers=(
                Paper("Efficiently Scaling Transformer Inference", "arXiv 2211.05102"),
                Paper("LLM.int8(): 8-bit Matrix Multiplication for Transformers at Scale", "arXiv 2208.07339"),
                Paper("FP8 Formats for Deep Learning", "arXiv 2209.05433"),
            ),
            check_module="pykernels.quant.linear_checks",
        ),
        Family(
            name="inference",
            summary="a decoder with its caches, generation, and the plan of its layout on many chips",
            module="pykernels.inference",
            functions=(
                "Decoder",
                "generate",
                "Engine",
                "Sampling",
                "plan.plan",
                "plan.pareto",
                "mesh.prove",
                "distributed.ShardedDecoder",
            ),
            papers=(
                Paper("Efficiently Scaling Transformer Inference", "arXiv 2211.05102"),
                Paper("PaLM: Scaling Language Modeling with Pathways", "arXiv 2204.02311"),
                Paper("RoFormer: Enhanced Transformer with Rotary Position Embedding", "arXiv 2104.09864"),
                Paper("Root Mean Square Layer Normalization", "arXiv 1910.07467"),
                Paper("GLU Variants Improve Transformer", "arXiv 2002.05202"),
            ),
            check_module="pykernels.inference.checks",
        ),
    )
}


def select(name: str | None) -> list[Family]:
    """The family called `name`, or all of them; raises `ValueError` for a name that is not registered."""
    if name is None:
        return list(FAMILIES.values())
    if name not in FAMILIES:
        raise ValueError(f"family: {name!r} is not one of {', '.join(FAMILIES)}")
    return [FAMILIES[name]]


def backends_here() -> dict[str, str]:
    """Each backend, with "usable" or the reason why it is not usable on this machine."""
    return {"reference": "usable", "cpu": "usable", "gpu": _gpu()}


def usable_backends() -> list[str]:
    return [backend for backend, state in backends_here().items() if state == "usable"]


def _gpu() -> str:
    for package in ("torch", "triton"):
        if importlib.util.find_spec(package) is None:
            return f"{package} is not installed"
    if os.environ.get("TRITON_INTERPRET") == "1":
        return "usable"
    if not importlib.import_module("torch").cuda.is_available():
        return "torch finds no CUDA or ROCm device, and TRITON_INTERPRET is not 1"
    return "usable"
