"""The cost of a trace's record: building it, and encoding it as a line of the journal.

    python -m bench.records [--rounds 9]

CPU µs per trace, medians over the rounds, of one realistic trace (1.6 KB of JSON), for three kinds
of record with the same fields: a plain object that takes a ready dict, encoded by orjson; a frozen
msgspec.Struct, encoded by msgspec, as `store.records.Trace` is; and a frozen dataclass with slots,
encoded by orjson, as the other records are. Building includes fetching the values from an object
with slots, as an exchange does.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import make_dataclass
from statistics import median
from typing import Any

import msgspec
import orjson

from store.ids import new_id
from store.records import Trace

COUNT = 20_000
MESSAGE = '[{"role":"system","content":"Sort the mail."},{"role":"user","content":"%s"}]'
REALISTIC = Trace(
    trace_id=new_id(),
    start_time=1_760_000_000.5,
    end_time=1_760_000_001.75,
    task="triage",
    served_by="teacher",
    route="teacher",
    reason="no_student",
    outcome="complete",
    status_code=200,
    request_model="gpt-4o",
    response_model="gpt-4o-2024-08-06",
    finish_reasons=["stop"],
    duration_ms=1250.25,
    input_tokens=90,
    output_tokens=7,
    request_params='{"model":"gpt-4o","temperature":0}',
    input_messages=MESSAGE % ("my parcel " * 45),
    output_messages='[{"role":"assistant","content":"shipping"}]',
    input_hash="0123456789abcdef" * 4,
    fingerprint="0123456789abcdef",
)


class PlainTrace:
    """An object whose attributes are a dict that it is given."""


def kinds() -> dict[str, tuple[Callable[[], Any], Callable[[Any], bytes]]]:
    """For each kind of record: how one is made, and how it is encoded."""
    names = Trace.__struct_fields__
    slotted = make_dataclass("Slotted", names, frozen=True, slots=True, kw_only=True)
    source = make_dataclass("Source", names, slots=True)(*msgspec.structs.astuple(REALISTIC))
    keywords = ", ".join(f"{name}=source.{name}" for name in names)
    space = {"source": source, "Trace": Trace, "Slotted": slotted, "Plain": PlainTrace}

    def made(expression: str) -> Callable[[], Any]:
        function: Callable[[], Any] = eval(f"lambda: {expression}", space)
        return function

    def plain_line(record: Any) -> bytes:
        return orjson.dumps(record.__dict__)

    fill = f"(lambda plain: (plain.__dict__.update({keywords}), plain)[1])(Plain())"
    encode = msgspec.json.Encoder().encode
    return {
        "plain object": (made(fill), plain_line),
        "msgspec.Struct": (made(f"Trace({keywords})"), encode),
        "slotted dataclass": (made(f"Slotted({keywords})"), orjson.dumps),
    }


def cpu_us(what: Callable[[], object]) -> float:
    """CPU µs per call."""
    began = time.process_time()
    for _ in range(COUNT):
        what()
    return (time.process_time() - began) / COUNT * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    for name, (make, encode) in kinds().items():
        record = make()
        building = median(cpu_us(make) for _ in range(rounds))
        encoding = median(cpu_us(lambda r=record, e=encode: e(r)) for _ in range(rounds))  # type: ignore[misc]
        print(f"{name:18} build {building:.2f} encode {encoding:.2f} µs")


if __name__ == "__main__":
    main()
