"""What this machine is: versions, CPU, threads, GPU. Every stored result carries `describe()`."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numba
import numpy as np
from llvmlite import binding

from pykernels import roofs
from pykernels.kernels._numba import cpu_features

PACKAGES = ("pykernels", "numpy", "numba", "llvmlite", "ml_dtypes", "torch", "triton")
_settings: Any = numba.config
_VECTOR = re.compile(r"(sse4|avx|fma|amx-|gfni|neon|sve|bf16|fullfp16|dotprod)")


def versions() -> dict[str, str]:
    """Python and the packages that matter here; those not installed are left out."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def cpu_name() -> str:
    """Name of the processor as the operating system gives it."""
    if sys.platform.startswith("linux"):
        match = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        if match:
            return match[1]
    if sys.platform == "darwin":
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(command, capture_output=True, text=True).stdout.strip()
    return platform.processor() or platform.machine()


def vector_features() -> list[str]:
    """The vector extensions that Numba compiles for: the host's, unless NUMBA_CPU_FEATURES says otherwise."""
    return sorted(name for name in cpu_features() if _VECTOR.match(name))


def vector_bits() -> int:
    """Width of the widest vector register in a reduction that Numba compiles here and now; 0 if unknown."""
    probe = numba.njit(roofs.largest_magnitude.py_func)  # a kernel from the disk cache cannot be inspected
    probe(np.zeros(1, np.uint32))
    assembly = next(iter(probe.inspect_asm().values()))
    widths = ((512, r"%zmm"), (256, r"%ymm"), (128, r"%xmm|\bv\d+\.4s|\bz\d+\.s"))
    return next((bits for bits, register in widths if re.search(register, assembly)), 0)


def threads() -> dict[str, Any]:
    """Numba's thread count and its threading layer, known once a parallel kernel has run."""
    roofs.read(np.zeros(1 << 20, np.uint32))
    return {
        "numba threads": numba.get_num_threads(),
        "threading layer": numba.threading_layer(),
        "cores usable": len(usable_cores()),
    }


def usable_cores() -> list[int]:
    """Numbers of the cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def cache_bytes() -> int:
    """Size of the last-level cache; 32 MiB where the system does not say."""
    sizes = []
    for index in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        match = re.fullmatch(r"(\d+)([KM])\s*", index.read_text())
        if match:
            sizes.append(int(match[1]) << {"K": 10, "M": 20}[match[2]])
    return max(sizes, default=32 << 20)


def gpu_name() -> str | None:
    """Name of torch's first CUDA or ROCm device, or None; imports torch where it is installed."""
    if importlib.util.find_spec("torch") is None:
        return None
    import torch

    return str(torch.cuda.get_device_name(0)) if torch.cuda.is_available() else None


def kernel_cache() -> str:
    """Folder of the compiled Numba kernels, or why there is none."""
    cache = getattr(roofs.largest_magnitude, "_cache", None)
    return str(getattr(cache, "cache_path", None) or "none: no folder is writable")


def commit() -> str | None:
    """Git commit of the checkout that this package runs from, marked if modified; None outside of one."""
    here = Path(__file__).resolve().parent
    if not (here.parent / ".git").exists():
        return None
    try:
        command = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
        described = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return described.stdout.strip() or None


def describe() -> dict[str, Any]:
    """Everything above, as one JSON-able dictionary."""
    return {
        "versions": versions(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpu": cpu_name(),
        "cpu target": _settings.CPU_NAME or binding.get_host_cpu_name(),
        "vector features": vector_features(),
        "vector bits": vector_bits(),
        **threads(),
        "last-level cache bytes": cache_bytes(),
        "gpu": gpu_name(),
        "kernel cache": kernel_cache(),
        "commit": commit(),
    }
