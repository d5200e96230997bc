"""`python -m tests.trial`: make every wrong use, and write what came of each into a dated table."""

import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from tests.trial.trial import USES, answer, hub_away
from tests.trial.world import digest, make

ROOT = Path(__file__).parents[2]
SLOW = 4.0
"""Seconds; who made a mistake is told soon."""
RESULTS = Path(__file__).parent / "results"


def run() -> int:
    """The number of uses with a wrong answer."""
    rows, wrong, area = [], 0, ""
    with tempfile.TemporaryDirectory(prefix="bartizan-trial-") as aside, hub_away():
        places = make(Path(aside) / "world")
        before = digest(places)
        for number, use in enumerate(USES, start=1):
            begun = time.monotonic()
            came = answer(use, places, Path(aside) / str(number))
            if time.monotonic() - begun > SLOW:
                print(f"{number} {use.area}: {use.name!r}: {time.monotonic() - begun:.1f} s", flush=True)
            faults = came.faults(use)
            wrong += bool(faults)
            if faults:
                print(
                    f"{number} {use.area}: {use.name!r}: {'; '.join(faults)}\n     {came.code} {came.line[:600]}",
                    flush=True,
                )
            rows += (
                [f"\n## {use.area}\n", "| | used as | exit | answer |", "|---|---|---|---|"] if use.area != area else []
            )
            area = use.area
            told = came.line.replace(aside, "…").replace(str(ROOT), "…").replace("|", "\\|")
            told = told if len(told) < 160 else told[:160] + " …"
            name = use.name.replace("|", "\\|").replace("\n", "⏎")[:110]
            rows.append(f"| {number}{' **wrong**' if faults else ''} | `{name}` | {came.code} | {told} |")
        changed = before != digest(places)
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    head = (
        f"# Wrong uses, {today}\n\n{len(USES)} uses; {wrong} with a wrong answer; the towers, exports, data and index "
        f"that they named are {'NOT ' if changed else ''}as they were. `python -m tests.trial` makes them again.\n"
    )
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{today}.md").write_text(head + "\n".join(rows) + "\n", encoding="utf-8")
    print(f"{len(USES)} uses, {wrong} with a wrong answer{', AND SOMETHING WAS CHANGED' if changed else ''}")
    return wrong + changed


if __name__ == "__main__":
    sys.exit(min(1, run()))
