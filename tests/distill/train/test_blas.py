"""The fast BLAS: right products, safe to build in several processes at once, and optional.

Each test runs in its own process, since a loaded library stays loaded.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT

MULTIPLY = """
from distill.train import blas
library = blas.enable()
import mlx.core as mx
import numpy as np
rng = np.random.default_rng(0)
a, b = (rng.standard_normal(shape).astype(np.float32) for shape in ((70, 130), (130, 90)))
with mx.stream(mx.cpu):
    for left, right in ((a, b), (a.T.copy().T, b), (a, b.T.copy().T)):
        assert np.allclose(np.array(mx.array(left) @ mx.array(right)), a @ b, atol=1e-3)
print(library)
"""

# As on a machine without OpenBLAS.
BARE = """
import importlib.util, shutil, sys
from distill.train import blas
blas.SYSTEM_LIBRARIES = ("libunderstudy-has-no-such-blas.so",)
"""

linux = pytest.mark.skipif(sys.platform != "linux", reason="MLX needs no help elsewhere")


def start(script: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env={**os.environ, **environment},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def run(script: str, **environment: str) -> str:
    process = start(script, **{"UNDERSTUDY_BLAS": "scipy-openblas32", **environment})
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out.strip()


@pytest.mark.slow
def test_products_are_right_with_the_blas_of_this_machine() -> None:
    run(MULTIPLY)


@pytest.mark.slow
def test_products_are_right_without_a_fast_blas() -> None:
    assert run(BARE + MULTIPLY, UNDERSTUDY_BLAS="") == "None"


@linux
@pytest.mark.slow
def test_shim_is_built_once_by_processes_that_race(tmp_path: Path) -> None:
    pytest.importorskip("scipy_openblas32")
    if not any(map(shutil.which, ("cc", "gcc", "clang"))):
        pytest.skip("no C compiler")
    script = BARE + f"sys.prefix = {str(tmp_path)!r}\n" + MULTIPLY
    racing = [start(script, UNDERSTUDY_BLAS="scipy-openblas32") for _ in range(3)]
    outcomes = [(*process.communicate(timeout=120), process.returncode) for process in racing]
    assert [code for _, _, code in outcomes] == [0, 0, 0], outcomes
    built = [str(path) for path in tmp_path.rglob("*") if path.is_file()]
    assert len(built) == 1
    assert {out.strip() for out, _, _ in outcomes} == set(built)


@linux
@pytest.mark.parametrize("named", ["", "/no/such/file.so"])
@pytest.mark.slow
def test_nothing_is_compiled_unless_the_wheel_is_asked_for(tmp_path: Path, named: str) -> None:
    (tmp_path / "cc").write_text("#!/bin/sh\ntouch $0.ran\n")
    (tmp_path / "cc").chmod(0o700)
    script = BARE + f"sys.prefix = {str(tmp_path)!r}\nprint(blas.enable(), blas.warn_if_slow())"

    assert run(script, UNDERSTUDY_BLAS=named, PATH=str(tmp_path)) == "None None"
    assert [path.name for path in tmp_path.iterdir()] == ["cc"]


@linux
def test_a_slow_matrix_product_is_told_once_with_what_to_do() -> None:
    script = """
import logging, sys
logging.basicConfig(stream=sys.stdout, format="%(levelname)s %(message)s")
from distill.train import blas
class Slow:
    stdout = blas.advice(1.3) + "\\n"
blas.subprocess.run = lambda *_, **__: Slow
blas.warn_if_slow()
blas.warn_if_slow()
"""
    logged = run(script)

    assert logged.count("\n") == 0
    assert logged.startswith("WARNING training and students are slow here")
    for named in ("1.3 GFLOP/s", "libopenblas0", "'understudy-proxy[fast-cpu]'"):
        assert named in logged


@linux
@pytest.mark.parametrize(("gflops", "slow"), [(1.2, True), (40.0, False)])
def test_only_a_slow_matrix_product_is_called_slow(gflops: float, slow: bool) -> None:
    script = BARE + f"blas._gflops = lambda: {gflops}\nblas.main()"

    assert ("are slow here" in run(script, UNDERSTUDY_BLAS="")) == slow


@linux
def test_the_speed_is_that_of_a_real_product() -> None:
    assert float(run("from distill.train import blas\nprint(blas._gflops())")) > 0.01


@linux
def test_without_a_compiler_there_is_no_shim(tmp_path: Path) -> None:
    script = BARE + f"sys.prefix = {str(tmp_path)!r}\nprint(blas.enable())"
    assert run(script, PATH=str(tmp_path)) == "None"


@linux
def test_a_compiler_that_fails_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "cc").symlink_to(shutil.which("false") or "/bin/false")
    script = BARE + f"sys.prefix = {str(tmp_path)!r}\nprint(blas.enable())"
    assert run(script, PATH=str(tmp_path)) == "None"
    assert not list(tmp_path.rglob("*.so"))


@linux
@pytest.mark.slow
def test_the_environment_names_the_library_first(tmp_path: Path) -> None:
    pytest.importorskip("scipy_openblas32")
    shim = run("from distill.train import openblas_wheel\nprint(openblas_wheel.shim_path())")
    if shim == "None":
        pytest.skip("no C compiler")
    mine = tmp_path / "mine.so"
    shutil.copy(shim, mine)
    assert run(MULTIPLY, UNDERSTUDY_BLAS=str(mine)) == str(mine)


@linux
@pytest.mark.slow
def test_a_library_without_cblas_or_a_missing_one_is_skipped() -> None:
    assert run(MULTIPLY, UNDERSTUDY_BLAS="libc.so.6") != "libc.so.6"
    assert run(MULTIPLY, UNDERSTUDY_BLAS="/no/such/file.so") != "/no/such/file.so"


def test_enabling_a_blas_after_mlx_does_nothing() -> None:
    assert run("import mlx.core\nfrom distill.train import blas\nprint(blas.enable())") == "None"


@linux
def test_environment_variables_of_the_user_are_kept() -> None:
    script = "import os\nfrom distill.train import blas\nblas.enable()\n"
    script += "print(os.environ['OPENBLAS_NUM_THREADS'], os.environ['MLX_DISABLE_COMPILE'])"
    assert run(script, OPENBLAS_NUM_THREADS="3", MLX_DISABLE_COMPILE="0") == "3 0"


@pytest.mark.parametrize("installed", ["mlx-cuda-12", "mlx-cuda-13"])
def test_with_cuda_no_blas_is_loaded(tmp_path: Path, installed: str) -> None:
    info = tmp_path / f"{installed.replace('-', '_')}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {installed}\nVersion: 1.0\n")
    script = "import os\nfrom distill.train import blas\nbefore = dict(os.environ)\n"
    script += "print(blas.enable(), dict(os.environ) == before)"
    assert run(script, PYTHONPATH=str(tmp_path)) == "None True"
