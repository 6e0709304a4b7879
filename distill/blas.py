"""Fast matrix multiplication for MLX on a Linux CPU.

`mlx[cpu]` on Linux multiplies with a bundled reference BLAS that uses neither vector units nor the cache well. A library
which exports `cblas_sgemm` and is loaded with `RTLD_GLOBAL` before `mlx.core` comes first in the dynamic linker's search
order, so MLX calls that one instead. `enable()` finds such a library; it changes nothing on macOS (Metal) or with CUDA.

The order of the search: the path in `UNDERSTUDY_BLAS`; OpenBLAS of the system; the wheel `scipy-openblas32`, whose symbols
carry the prefix `scipy_`, through a shim compiled once into the virtual environment. With none of them MLX still works, slowly.
"""

from __future__ import annotations

import ctypes
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
    # Debian keeps them here when its "alternatives" link is missing.
    "/usr/lib/x86_64-linux-gnu/openblas-pthread/libopenblas.so.0",
    "/usr/lib/aarch64-linux-gnu/openblas-pthread/libopenblas.so.0",
    "libopenblas.so",
)

CUDA_DISTRIBUTIONS = ("mlx-cuda-12", "mlx-cuda-13", "mlx-cuda")

# The three are all that libmlx links from CBLAS (`nm -D --undefined-only`). Its LAPACK calls stay with the bundled library:
# they are decompositions, which neither training nor serving uses.
_SHIM_SOURCE = """\
#define GEMM(name, scalar, alpha_type, matrix) \\
    void scipy_cblas_##name(int, int, int, int, int, int, alpha_type, matrix, int, matrix, int, \\
                            alpha_type, scalar *, int); \\
    void cblas_##name(int order, int ta, int tb, int m, int n, int k, alpha_type alpha, matrix a, \\
                      int lda, matrix b, int ldb, alpha_type beta, scalar *c, int ldc) { \\
        scipy_cblas_##name(order, ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc); \\
    }
GEMM(sgemm, float, float, const float *)
GEMM(dgemm, double, double, const double *)
GEMM(cgemm, void, const void *, const void *)
"""


def enable() -> str | None:
    """Load a fast BLAS for MLX and return its path or name; None where there is none, or none is needed.

    Call it before anything imports `mlx.core`: afterwards MLX is bound to its own BLAS, and the call returns None (or what an
    earlier call has loaded). Never raises. Sets `OPENBLAS_NUM_THREADS` and `MLX_DISABLE_COMPILE` to 1 on a Linux CPU unless the
    environment already says otherwise: threads and compiled kernels cost more than they give for a student this small.
    """
    global _enabled
    if _enabled is not None or "mlx.core" in sys.modules or not _linux_cpu():
        return _enabled
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    os.environ.setdefault("MLX_DISABLE_COMPILE", "1")
    named = os.environ.get(VARIABLE)
    for library in (*((named,) if named else ()), *SYSTEM_LIBRARIES):
        if _load(library):
            _enabled = library
            return library
    shim = _shim()
    if shim is not None and _load(str(shim)):
        _enabled = str(shim)
    return _enabled


# What this process has loaded. A library cannot be unloaded again, so the state is the process's, not an object's.
_enabled: str | None = None


def _linux_cpu() -> bool:
    if sys.platform != "linux":
        return False
    installed = {d.name.lower() for name in CUDA_DISTRIBUTIONS for d in metadata.distributions(name=name)}
    return not installed


def _load(library: str) -> bool:
    """Load the library for all others to see; False when it is absent or is not a CBLAS."""
    try:
        # Looked at privately first: a library without the symbol must not end up in the global search order.
        if not hasattr(ctypes.CDLL(library), "cblas_sgemm"):
            return False
        ctypes.CDLL(library, mode=ctypes.RTLD_GLOBAL)
    except OSError:
        return False
    return True


def _shim() -> Path | None:
    """The compiled shim in front of the `scipy-openblas32` wheel; None without the wheel or a C compiler."""
    spec = importlib.util.find_spec("scipy_openblas32")
    if spec is None or spec.origin is None:
        return None
    library = Path(spec.origin).parent / "lib" / "libscipy_openblas.so"
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if not library.is_file():
        return None
    size = library.stat().st_size
    key = hashlib.sha256(f"{_SHIM_SOURCE}\0{library}\0{size}".encode()).hexdigest()[:16]
    shim = Path(sys.prefix) / "var" / "cache" / "understudy" / f"blas-{key}.so"
    if shim.is_file():
        return shim
    if compiler is None:
        return None
    return _compile(compiler, library, shim)


def _compile(compiler: str, library: Path, shim: Path) -> Path | None:
    """Build the shim beside its place and rename it: of several processes that race, each sees a whole file or none."""
    try:
        shim.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=shim.parent) as folder:
            source, built = Path(folder) / "shim.c", Path(folder) / "shim.so"
            source.write_text(_SHIM_SOURCE, encoding="utf-8")
            subprocess.run(
                [compiler, "-O2", "-shared", "-fPIC", "-o", str(built), str(source), str(library)]
                + [f"-Wl,-rpath,{library.parent}"],
                check=True,
                capture_output=True,
                timeout=60,
            )
            os.replace(built, shim)
    except (OSError, subprocess.SubprocessError):
        return None
    return shim
