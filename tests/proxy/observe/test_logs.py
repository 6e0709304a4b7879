"""The worker's log lines."""

import logging
import sys

from proxy.observe.logs import OneLine


def record(message, *values, exc_info=None):
    return logging.LogRecord("proxy.x", logging.ERROR, __file__, 1, message, values, exc_info)


def test_one_line_with_names_and_values():
    line = OneLine().format(record("fallback task=%s", "triage"))
    assert "\n" not in line
    assert line.startswith("time=")
    assert line.endswith("level=ERROR from=proxy.x event=fallback task=triage")


def test_an_exception_is_its_type_and_its_places_not_its_message():
    def fails():
        raise ValueError("what the client said")

    try:
        fails()
    except ValueError:
        line = OneLine().format(record("request_failed", exc_info=sys.exc_info()))
    assert "\n" not in line
    assert "error=ValueError at=test_logs.py:" in line
    assert "client said" not in line
