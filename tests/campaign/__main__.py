"""`python -m tests.campaign`: random faults, printed by kind, and whether anything was wrong."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import random
import signal
import sys
import time
from collections import Counter

from tests.campaign.disk import INSIDE, enter_namespace
from tests.campaign.run import campaign


def main(arguments: list[str]) -> int:
    """The exit status: 0 when all faults were run and nothing was wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.campaign", description=__doc__)
    parser.add_argument("--seed", type=int, help="of the first episode; default: drawn")
    parser.add_argument("--faults", type=int, default=1000)
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument("--verbose", action="store_true", help="print each fault")
    options = parser.parse_args(arguments)
    seed = random.randrange(1_000_000) if options.seed is None else options.seed
    enter_namespace([*arguments, *(() if options.seed is not None else ("--seed", str(seed)))])

    def say(line: str) -> None:
        print(line, flush=True)

    logging.getLogger("asyncio").setLevel(logging.ERROR)  # peers that hang up are no news
    disk = "a small disk of its own" if os.environ.get(INSIDE) else "limits of processes"
    say(f"campaign: seed {seed}, {options.faults} faults, full disks by {disk}")
    # whoever ends the campaign ends its server too
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    began = time.monotonic()
    outcomes = asyncio.run(
        campaign(
            seed,
            options.faults,
            minutes=options.minutes,
            say=say,
            detail=say if options.verbose else lambda line: None,
        )
    )
    faults, verdicts, notes = Counter[str](), Counter[str](), Counter[str]()
    for outcome in outcomes:
        faults += outcome.faults
        verdicts += outcome.verdicts
        notes += outcome.notes
    say("")
    for name, count in faults.most_common():
        say(f"{count:6} {name}")
    for name, count in (verdicts + notes).most_common():
        say(f"{count:6} {name}")
    wrong = sum(len(outcome.wrong) for outcome in outcomes)
    seeds = [outcome.seed for outcome in outcomes]
    say(
        f"seeds {seeds[0]} to {seeds[-1]}: {faults.total()} faults, {verdicts.total()} requests, "
        f"{wrong} wrong, {(time.monotonic() - began) / 60:.1f} minutes"
    )
    if faults.total() < options.faults:
        say(f"time was up before all {options.faults} faults were run")
    return int(wrong > 0 or faults.total() < options.faults)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
