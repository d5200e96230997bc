"""`python -m benchmarks [NAME …] [--demo FOLDER]`: run these benchmarks, or all."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from bartizan_connector.base.console import err
from bartizan_connector.base.errors import BartizanError
from benchmarks import collections, embedded_store, query_tower, training_throughput, triton_hop

BENCHMARKS: dict[str, Callable[[argparse.Namespace], None]] = {
    "query_tower": lambda given: query_tower.run(given.demo),
    "collections": lambda given: collections.run(),
    "embedded_store": lambda given: embedded_store.run(),
    "training_throughput": lambda given: training_throughput.run(),
    "triton_hop": lambda given: triton_hop.run(),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmarks; 0 when each of them could be measured and met what it is held to."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--demo", type=Path, default=Path("bartizan-demo"), help="what `bartizan demo` left")
    given = parser.parse_args(arguments)
    if unknown := [name for name in given.names if name not in BENCHMARKS]:
        parser.error(f"unknown benchmark {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    code = 0
    for name in given.names or BENCHMARKS:
        try:
            BENCHMARKS[name](given)
        except BartizanError as error:
            err.print(f"{name}: {error}", markup=False, style="red")
            code = max(code, error.exit_code)
    return code


if __name__ == "__main__":
    sys.exit(main())
