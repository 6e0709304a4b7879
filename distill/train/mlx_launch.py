"""Starts a Python module that uses MLX: a fast BLAS first, and a log that quotes nobody.

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


class NoBodies(logging.Filter):
    """Cuts what `mlx_lm.server` logs of a request down to what is not the request.

    It logs the raw body of malformed JSON, and what a tool call's parser says of an answer. Both
    stand behind the first colon of the message.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Keeps every record; of a one-line message without a traceback, its first words."""
        if not record.exc_info:
            record.msg = record.getMessage().partition(":")[0]
            record.args = None
        return True


def no_request_lines(*_: object) -> None:
    """Stands in for the line that Python's HTTP server writes a request: it would fill the disk."""


def main(arguments: list[str]) -> None:
    """Runs the module that the arguments name; ends as it ends."""
    if not arguments:
        sys.exit("usage: python -m distill.train.mlx_launch MODULE [ARGUMENT…]")
    blas.enable()
    # a filter on the root logger sees what is logged by `logging.error(…)`, as mlx_lm.server does
    logging.getLogger().addFilter(NoBodies())
    http.server.BaseHTTPRequestHandler.log_message = no_request_lines  # type: ignore[assignment]
    module, *rest = arguments
    sys.argv = [module, *rest]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except Exception:
        # mlx_lm.server that cannot take its port would go on for ever in its generating thread
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)


if __name__ == "__main__":
    main(sys.argv[1:])
