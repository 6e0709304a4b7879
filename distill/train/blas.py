"""Fast matrix multiplication for MLX on a Linux CPU.

`mlx[cpu]` on Linux multiplies with a bundled reference BLAS, an order of magnitude below what the
processor can do. A library that exports `cblas_sgemm` and is loaded with `RTLD_GLOBAL` before
`mlx.core` comes first in the dynamic linker's search order, so MLX calls that one instead.
On macOS (Metal) and with CUDA there is nothing to do, and nothing is done.

Searched in this order: what `UNDERSTUDY_BLAS` names, which is the path of a library or
`scipy-openblas32` for that wheel (the extra `fast-cpu`, and a C compiler); the system's OpenBLAS.
With none of them MLX works, slowly, and `warn_if_slow` says so.

    python -m distill.train.blas

prints the library that is used, or how slow MLX is without one.
"""

from __future__ import annotations

import ctypes
import functools
import logging
import os
import subprocess
import sys
from importlib import metadata
from time import perf_counter

from store.distribution import install_hint

log = logging.getLogger(__name__)

VARIABLE = "UNDERSTUDY_BLAS"
WHEEL = "scipy-openblas32"

SYSTEM_LIBRARIES = (
    "libopenblas.so.0",
    # Debian's own folders, for when its link to them is missing.
    "/usr/lib/x86_64-linux-gnu/openblas-pthread/libopenblas.so.0",
    "/usr/lib/aarch64-linux-gnu/openblas-pthread/libopenblas.so.0",
    "libopenblas.so",
)

CUDA_DISTRIBUTIONS = ("mlx-cuda-12", "mlx-cuda-13")

# The reference BLAS does 1 to 3 GFLOP/s on today's processors, OpenBLAS 20 to 100 on one core.
SLOW_GFLOPS = 8.0
_SIZE = 256  # rows and columns of the matrices that are multiplied to measure it
_TRIES = 3
_CHECK_TIMEOUT_S = 60.0


@functools.cache  # a process loads a library once and for good
def enable() -> str | None:
    """Load a fast BLAS for MLX; its name or path, or None where there is none or none is needed.

    Call it before anything imports `mlx.core`: afterwards MLX is bound to its own BLAS, and the
    first call returns None. It never raises. On a Linux CPU it sets `OPENBLAS_NUM_THREADS` and
    `MLX_DISABLE_COMPILE` to 1 unless the environment says otherwise: with a student this small,
    threads and compiled kernels cost more than they give.
    """
    if "mlx.core" in sys.modules or not _linux_cpu():
        return None
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    os.environ.setdefault("MLX_DISABLE_COMPILE", "1")
    for library in (_named(), *SYSTEM_LIBRARIES):
        if library is not None and _load(library):
            return library
    return None


@functools.cache  # once in a server's life
def warn_if_slow() -> None:
    """Logs how to speed MLX up where its matrix product is slow. Blocks for a moment, once.

    A process of its own measures it, since a library that is loaded stays. Never raises.
    """
    if not _linux_cpu():
        return
    try:
        command = [sys.executable, "-m", "distill.train.blas"]
        done = subprocess.run(
            command, capture_output=True, check=True, text=True, timeout=_CHECK_TIMEOUT_S
        )
    except (OSError, subprocess.SubprocessError):
        return  # whoever needs MLX will say what is wrong with it
    if done.stdout.startswith(_SLOW):
        log.warning("%s", done.stdout.strip())


def main() -> None:
    """Prints what `python -m distill.train.blas` is asked for."""
    library = enable()
    if library is not None:
        print(f"MLX multiplies matrices with {library}")
    elif not _linux_cpu():
        print("MLX needs no BLAS here")
    elif (speed := _gflops()) < SLOW_GFLOPS:
        print(advice(speed))
    else:
        print(f"MLX multiplies matrices fast enough: {speed:.1f} GFLOP/s")


_SLOW = "training and students are slow here"


def advice(gflops: float) -> str:
    """What to do about a slow matrix product."""
    return (
        f"{_SLOW}: MLX multiplies matrices at {gflops:.1f} GFLOP/s, many times below what the "
        "processor can do. Install OpenBLAS (Debian and Ubuntu: apt install libopenblas0), or "
        f"{install_hint('fast-cpu')} and set {VARIABLE}={WHEEL} (needs a C compiler)"
    )


def _gflops() -> float:
    """The speed of MLX's matrix product on the CPU, in 10^9 operations a second."""
    import mlx.core as mx  # noqa: PLC0415 - a library has to be loaded before it

    best = 0.0
    with mx.stream(mx.cpu):
        matrix = mx.ones((_SIZE, _SIZE))
        mx.eval(matrix)
        for _ in range(_TRIES):
            began = perf_counter()
            mx.eval(matrix @ matrix)
            best = max(best, 2 * _SIZE**3 / (perf_counter() - began) / 1e9)
    return best


def _named() -> str | None:
    named = os.environ.get(VARIABLE)
    if named != WHEEL:
        return named or None
    from distill.train.openblas_wheel import shim_path  # noqa: PLC0415 - may compile, where asked for

    return shim_path()


def _linux_cpu() -> bool:
    """Whether MLX computes on the CPU of a Linux machine."""
    if sys.platform != "linux":
        return False
    return not any(any(metadata.distributions(name=name)) for name in CUDA_DISTRIBUTIONS)


def _load(library: str) -> bool:
    """Load the library for all others to see; False when it is absent or no CBLAS."""
    try:
        # Looked at privately first: what lacks the symbol must not join the global search order.
        if not hasattr(ctypes.CDLL(library), "cblas_sgemm"):
            return False
        ctypes.CDLL(library, mode=ctypes.RTLD_GLOBAL)
    except OSError:
        return False
    return True


if __name__ == "__main__":
    main()
