"""Where the proxy's time goes: a sampling profile of one worker under load, by py-spy.

https://github.com/benfred/py-spy reads the stacks of a running process from outside. With native
frames, where it can give them, time spent in C belongs to the library that spends it; time in the
interpreter, in libc or in the kernel to its caller. py-spy stops the process for each sample, so
the sampling rate is low.

It samples wall time. On a busy machine a process that writes to a socket is often preempted by the
reader, so system calls seem to take far longer than they do. Therefore the samples within system
calls share the CPU time that the kernel accounts for, and all others the rest.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from bench.gateways import understudy
from bench.load import MissingTool, load
from bench.logged import settle
from bench.measure import MANY, until_answered
from bench.metering import cpu_of
from bench.upstream import CHUNKS, PACE_MS, running_upstream
from store.jsontext import JsonObject

RATE = 100  # samples a second
MAX_LINES = 30  # lines of a list
GARBAGE = "garbage collection"
_LINE = re.compile(r"(?P<stack>.*) (?P<count>\d+)")
_FRAME = re.compile(r"(?P<name>.*) \((?P<file>[^()]*?)(?::(?P<line>\d+))?\)")
# C sources, where a library has the names of them in it
_SOURCES = {
    **dict.fromkeys(("loop.c", "linux.c", "stream.c", "core.c", "uv-common.c", "tcp.c"), "uvloop"),
    **dict.fromkeys(("parser.c", "api.c", "llhttp.c"), "httptools"),
    **dict.fromkeys(("_http_parser.c", "_http_writer.c"), "aiohttp"),
    "_asynciomodule.c": "asyncio",
}
# attributed to their caller
_BENEATH = re.compile(
    r"\[vdso\]|libpython.*|libc[.-].*|libpthread.*|libm[.-].*|ld-.*|python[\d.]*|<.*>|.*\.[chS]"
)
_SYSTEM_CALLS = re.compile(
    r"_*(p?read|p?write|readv|writev|recv|recvmsg|send|sendmsg|epoll_p?wait|epoll_ctl|accept4?|close"
    r"|open|openat|fstat|getpid|getppid|getrandom|fsync|fdatasync|rename|kill|mmap|munmap|madvise)"
    r"(64|_nocancel)?"
)
_MAIN = ("<module>", "main")
_WAITS = re.compile(
    r"_*(time_sleep|clock_nanosleep|nanosleep|pthread_cond_\w*wait|futex\w*|sem_\w*wait)"
)
_OURS = re.compile(r"(proxy|store|cli)/")


def profile(checkout: Path, *, seconds: int) -> JsonObject:
    """CPU µs a request: by file or library, by function alone, by function of ours with callees.

    Raises MissingTool without py-spy, and RuntimeError where it may not look into processes.
    """
    spy = _py_spy()
    with (
        tempfile.TemporaryDirectory(prefix="understudy-bench-") as name,
        running_upstream(0, CHUNKS, PACE_MS) as upstream,
        understudy(upstream, Path(name), checkout=checkout) as running,
        ThreadPoolExecutor(1) as pool,
    ):
        assert running.data_dir is not None
        until_answered(running, Path(name))
        settle(running.data_dir)
        [worker] = running.answering()
        ask = partial(load, running.url, connections=MANY, headers=running.headers)
        ask(seconds=1)
        before = cpu_of([worker])
        plain = ask(seconds=max(2, seconds // 2))
        used = cpu_of([worker]) - before
        settle(running.data_dir)
        under_load = pool.submit(ask, seconds=seconds + 2)
        file = Path(name) / "profile"
        native = _record(spy, worker.pid, seconds, file)
        under_load.result()
        stacks = list(read_stacks(file.read_text(encoding="utf-8").splitlines()))
    requests = plain.requests
    weighed = weigh(stacks, used.user / requests * 1e6, used.system / requests * 1e6)
    return {
        "connections": MANY,
        "native": native,
        "samples": sum(count for _, count in stacks),
        "requests": requests,
        "cpu_us": round(used.total / requests * 1e6, 1),
        "cpu_system_us": round(used.system / requests * 1e6, 1),
        "by_group": _most((group_of(stack), us) for stack, us in weighed),
        "by_function": _most((function_of(stack), us) for stack, us in weighed),
        "inclusive": _most((f, us) for stack, us in weighed for f in ours_in(stack)),
    }


Frame = tuple[str, str]  # a function's name, and its file or library
Stack = tuple[Frame, ...]  # outermost first


def read_stacks(lines: Iterable[str]) -> Iterable[tuple[Stack, int]]:
    """The stacks of py-spy's raw format, each with its samples, but for threads that wait."""
    for line in lines:
        read = _LINE.fullmatch(line)
        if read is None:
            continue
        found = (_FRAME.fullmatch(frame) for frame in read["stack"].split(";"))
        stack = tuple((f["name"], f["file"]) for f in found if f)
        if stack and not any(_WAITS.fullmatch(name) for name, _ in stack):
            yield stack, int(read["count"])


def weigh(
    stacks: Sequence[tuple[Stack, int]], user_us: float, system_us: float
) -> list[tuple[Stack, float]]:
    """The stacks with their shares of the CPU time; by samples alone without any system calls.

    Without native frames system calls cannot be recognised, so it is by samples alone too.
    """
    calls = sum(n for stack, n in stacks if in_system_call(stack))
    total = sum(n for _, n in stacks)
    if not 0 < calls < total:
        return [(stack, n * (user_us + system_us) / total) for stack, n in stacks]
    call_us, other_us = system_us / calls, user_us / (total - calls)
    return [(s, n * (call_us if in_system_call(s) else other_us)) for s, n in stacks]


def in_system_call(stack: Stack) -> bool:
    """Whether the kernel was at work."""
    name, file = stack[-1]
    return file.startswith("libc") and _SYSTEM_CALLS.fullmatch(name) is not None


def group_of(stack: Stack) -> str:
    """The file or the library that the time belongs to."""
    if any(name.startswith("gc_collect") for name, _ in stack):
        return GARBAGE
    return next((place for _, place in _places(stack)), "the interpreter")


def function_of(stack: Stack) -> str:
    """The innermost function that is not the interpreter's or the C library's, and its place."""
    if group_of(stack) == GARBAGE:
        return GARBAGE
    return next((f"{name} ({place})" for name, place in _places(stack)), "the interpreter")


def ours_in(stack: Stack) -> set[str]:
    """Every function of the product in it, but for those that are in every one."""
    return {f"{name} ({file})" for name, file in stack if _OURS.match(file) and name not in _MAIN}


def _places(stack: Stack) -> Iterable[Frame]:
    """Its functions with what they belong to, innermost first, without what is beneath them."""
    for name, file in reversed(stack):
        if file in _SOURCES:
            yield name, _SOURCES[file]
        elif not _BENEATH.fullmatch(file):
            yield name, _place(file)


def _place(file: str) -> str:
    """A file of ours as it is, a package by its name, a library without its version."""
    if _OURS.match(file):
        return file
    return file.partition("/")[0].partition(".")[0]


def _most(counted: Iterable[tuple[str, float]]) -> dict[str, float]:
    """Microseconds by label, the most first."""
    total: Counter[str] = Counter()
    for label, us in counted:
        total[label] += us  # type: ignore[assignment]  # a Counter adds floats as well
    return {label: round(us, 2) for label, us in total.most_common(MAX_LINES)}


def _py_spy() -> str:
    beside = Path(sys.executable).with_name("py-spy")
    found = str(beside) if beside.exists() else shutil.which("py-spy")
    if found is None:
        raise MissingTool("py-spy, the profiler, is not installed: `pip install py-spy`")
    return found


def _record(spy: str, pid: int, seconds: int, file: Path) -> bool:
    """Writes the profile. Returns whether it has native frames, which not every system gives."""
    common = ["--pid", str(pid), "--duration", str(seconds), "--rate", str(RATE)]
    output = ""
    for native in (["--native"], []):
        done = subprocess.run(
            [spy, "record", "--format", "raw", "--output", str(file), *common, *native],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode == 0 and file.exists():
            return bool(native)
        output = done.stderr.strip()[-300:]
    raise RuntimeError(f"py-spy could not profile the worker: {output}")
