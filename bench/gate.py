"""The gate's promise in numbers: wrong promotions, rows to promote, coverage. Seeds are fixed.

    .venv/bin/python -m bench.gate [--json] [--quick]

Runs the shipped code. Results of a bound alone are exact (bench/simulate_gate.py); those with the
choice of the cutoffs are simulated (bench/simulate_path.py, and bench/simulate_groups.py where rows
belong together), with exact 95 % intervals; live traffic in groups by bench/simulate_live.py. The
change detector's numbers come last (bench/simulate_detector.py).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from bench import simulate_gate, simulate_groups, simulate_live, simulate_path
from store.jsontext import JsonObject

NAMES = {
    "ours": "gate",
    "ours_retrains": "gate, ten retrains",
    "ours_informed": "gate, 200 calibration rows",
    "ours_promoted": "promoted",
    "clopper_pearson": "Clopper-Pearson",
    "clopper_pearson_promoted": "promoted",
    "one_cutoff": "one cutoff",
    "one_cutoff_promoted": "promoted",
    "plain_mean": "plain mean",
    "uniform_mixture": "uniform mixture",
    "one_bet_that_knows": "best single bet",
    "by_row": "each row counted",
}
TITLES = {
    "peeking": f"Wrong promotions, every one of {simulate_gate.LOOKS} rows looked at; exact",
    "best_of_ten": "Wrong promotions, the best of ten retrains, each looked at once; exact",
    "rows_to_promote": "Median rows to promote, threshold 0.95, alpha 0.05, every row looked at; "
    "exact",
    "one_look": "Good students promoted at one look, threshold 0.95, alpha 0.05; exact",
    "coverage": "The lower bound is right at every one of the looks; exact",
    "bounds_right": "Bounds of scores and of judged answers, one look, alpha 0.05; simulated",
    "wrong_promotions": "Wrong promotions through the choice of cutoffs; simulated",
    "groups": "Wrong promotions by group size and correlation of the rows; simulated",
    "live": simulate_live.TITLE,
    "coverage_won": "Mean coverage certified, and share promoted, first attempt; simulated",
}


def report(*, quick: bool) -> dict[str, list[JsonObject]]:
    """Every table of the gate, by name. `quick`: a tenth of the simulated rounds."""
    tenth = 10 if quick else 1
    return {
        "peeking": simulate_gate.peeking(),
        "best_of_ten": simulate_gate.best_of_ten(100),
        "rows_to_promote": simulate_gate.rows_to_promote(200),
        "one_look": simulate_gate.one_look(300),
        "coverage": simulate_gate.coverage(),
        "bounds_right": simulate_path.bounds_right(1000 // tenth),
        "wrong_promotions": simulate_path.wrong_promotions(400 // tenth),
        "groups": simulate_groups.wrong_promotions(400 // tenth),
        "live": simulate_live.report(400 // tenth),
        "coverage_won": simulate_path.coverage_won(100 // tenth),
    }


def table(title: str, rows: Sequence[JsonObject]) -> Table:
    """The rows as a table with a column for each name in them."""
    shown = Table(title=title, title_justify="left")
    for name in rows[0]:
        shown.add_column(NAMES.get(name, name), justify="left" if name == "student" else "right")
    for row in rows:
        shown.add_row(*(_shown(value) for value in row.values()))
    return shown


def _shown(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def main() -> None:
    """Prints the tables, or the same as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="JSON instead of tables")
    parser.add_argument("--quick", action="store_true", help="a tenth of the simulated rounds")
    arguments = parser.parse_args()
    from bench import simulate_detector  # noqa: PLC0415  (the tables of the gate need none of it)

    gate = report(quick=arguments.quick)
    detector = simulate_detector.report(quick=arguments.quick)
    if arguments.json:
        print(json.dumps({"gate": gate, "detector": detector}, indent=1))
        return
    console = Console(width=None if Console().is_terminal else 140)
    for name, rows in gate.items():
        console.print(table(TITLES[name], rows), end="\n")
    console.print(simulate_detector.table(detector))


if __name__ == "__main__":
    main()
