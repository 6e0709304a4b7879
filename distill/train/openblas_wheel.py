"""The wheel `scipy-openblas32` as a BLAS for MLX, through a shim that is compiled once.

The wheel's symbols carry the prefix `scipy_`, so a C library of a few lines passes calls on. It is
compiled only where `UNDERSTUDY_BLAS` names the wheel (see distill.train.blas), into the virtual
environment.
"""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

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


def shim_path() -> str | None:
    """The shim's path, compiled if need be; None without the wheel or a C compiler."""
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
