"""The log lines of all processes."""

import logging
import sys

import pytest

from store.errors import StoreError
from store.logs import OneLine


def line_of(message, *values, error=None):
    record = logging.LogRecord(
        "proxy.x", logging.ERROR, __file__, 1, message, values, error and sys.exc_info()
    )
    return OneLine().format(record)


def raised(error):
    try:
        raise error
    except type(error) as caught:
        return line_of("request_failed", error=caught)


@pytest.mark.parametrize("event", ["drained", "fallback task=triage", "answered task=None ms=1.5"])
def test_an_event_with_names_and_values_is_written_as_it_is(event):
    line = line_of(event)
    assert line.startswith("time=")
    assert line.endswith(f"level=ERROR from=proxy.x event={event}")


def test_a_sentence_is_quoted_so_that_the_line_stays_name_and_value_pairs():
    line = line_of('proxy ended ("killed")\nnext start in %g s: …', 0.5)
    assert "\n" not in line
    assert line.endswith(r'event="proxy ended (\"killed\")\nnext start in 0.5 s: …"')


def test_an_exception_is_its_type_and_its_places_not_its_message():
    line = raised(ValueError("what the client said"))
    assert "\n" not in line
    assert "error=ValueError at=test_logs.py:" in line
    assert "client said" not in line


def test_an_exception_of_ours_shows_its_message():
    assert 'message="the disk is full"' in raised(StoreError("the disk is full"))
