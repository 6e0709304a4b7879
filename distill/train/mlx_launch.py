"""Starts a Python module that uses MLX, with a fast BLAS and without requests in the log.

    python -m distill.train.mlx_launch MODULE [ARGUMENT…]

runs MODULE as `python -m MODULE` would. The students (`mlx_lm server`), the training subprocess
(`distill.train.trainer`) and `mlx_lm lora` are all started so.
"""

from __future__ import annotations

import http.server
import logging
import os
import runpy
import sys
import traceback

from distill.train import blas


class BodyFilter(logging.Filter):
    """Removes contents of requests from the log of `mlx_lm.server`.

    It logs the raw body of malformed JSON, and the errors of its tool call parser, which quote the
    answer. Both follow the first colon of the message.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Keeps every record; without a traceback only the words before the first colon."""
        if not record.exc_info:
            record.msg = record.getMessage().partition(":")[0]
            record.args = None
        return True


def no_request_lines(*_: object) -> None:
    """Replaces the log line per request of Python's HTTP server, which would fill the disk."""


def main(arguments: list[str]) -> None:
    """Runs the module that the arguments name, and exits as it exits."""
    if not arguments:
        sys.exit("usage: python -m distill.train.mlx_launch MODULE [ARGUMENT…]")
    blas.enable()
    # on the root logger, because mlx_lm.server logs by `logging.error(…)`
    logging.getLogger().addFilter(BodyFilter())
    http.server.BaseHTTPRequestHandler.log_message = no_request_lines  # type: ignore[assignment]
    module, *rest = arguments
    sys.argv = [module, *rest]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except Exception:
        # when it cannot bind its port, mlx_lm.server would run on in its generation thread
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)


if __name__ == "__main__":
    main(sys.argv[1:])
