"""Fast matrix multiplication for MLX on a Linux CPU.

`mlx[cpu]` on Linux multiplies with a bundled reference BLAS, an order of magnitude below what the
processor can do. A library that exports `cblas_sgemm` and is loaded with `RTLD_GLOBAL` before
`mlx.core` comes first in the dynamic linker's search order, so MLX calls that one instead.
On macOS (Metal) and with CUDA there is nothing to do, and nothing is done.

Searched in this order: the path in `UNDERSTUDY_BLAS`; the system's OpenBLAS; the wheel
`scipy-openblas32`, whose symbols carry the prefix `scipy_`, through a shim compiled once into
the virtual environment. With none of them MLX works as before, slowly.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

VARIABLE = "UNDERSTUDY_BLAS"

SYSTEM_LIBRARIES = (
    "libopenblas.so.0",
    # Debian's own folders, for when its link to them is missing.
    "/usr/lib/x86_64-linux-gnu/openblas-pthread/libopenblas.so.0",
    "/usr/lib/aarch64-linux-gnu/openblas-pthread/libopenblas.so.0",
    "libopenblas.so",
)

CUDA_DISTRIBUTIONS = ("mlx-cuda-12", "mlx-cuda-13")

# These three are all that libmlx links from CBLAS (`nm -D --undefined-only libmlx.so`). Its LAPACK
# calls stay with the bundled library: decompositions, which neither training nor serving needs.
SHIM_SOURCE = """\
#define GEMM(name, scalar, value, matrix) \\
  void scipy_cblas_##name(int, int, int, int, int, int, value, matrix, int, matrix, int, value, \\
                          scalar *, int); \\
  void cblas_##name(int order, int ta, int tb, int m, int n, int k, value alpha, matrix a, \\
                    int lda, matrix b, int ldb, value beta, scalar *c, int ldc) { \\
    scipy_cblas_##name(order, ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc); \\
  }
GEMM(sgemm, float, float, const float *)
GEMM(dgemm, double, double, const double *)
GEMM(cgemm, void, const void *, const void *)
"""


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
    named = os.environ.get(VARIABLE)
    for library in (*([named] if named else []), *SYSTEM_LIBRARIES):
        if _load(library):
            return library
    shim = _shim()
    return shim if shim is not None and _load(shim) else None


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


def _shim() -> str | None:
    """The shim in front of the `scipy-openblas32` wheel; None without the wheel or a C compiler."""
    spec = importlib.util.find_spec("scipy_openblas32")
    if spec is None or spec.origin is None:
        return None
    library = Path(spec.origin).parent / "lib" / "libscipy_openblas.so"
    if not library.is_file():
        return None
    # Another wheel, another place or another source is another shim.
    made_of = f"{SHIM_SOURCE}\0{library}\0{library.stat().st_size}"
    name = f"blas-{hashlib.sha256(made_of.encode()).hexdigest()[:16]}.so"
    shim = Path(sys.prefix) / "var" / "cache" / "understudy" / name
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if shim.is_file() or (compiler is not None and _compile(compiler, library, shim)):
        return str(shim)
    return None


def _compile(compiler: str, library: Path, shim: Path) -> bool:
    """Build beside the shim's place, then rename: processes that race see a whole file or none."""
    try:
        shim.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=shim.parent) as folder:
            source, built = Path(folder) / "shim.c", Path(folder) / "shim.so"
            source.write_text(SHIM_SOURCE, encoding="utf-8")
            command = [compiler, "-O2", "-shared", "-fPIC", f"-Wl,-rpath,{library.parent}"]
            command += ["-o", str(built), str(source), str(library)]
            subprocess.run(command, check=True, capture_output=True, timeout=60)
            built.replace(shim)
    except (OSError, subprocess.SubprocessError):
        return False
    return True
