"""`python -m benchmarks [NAME …] [--demo FOLDER]`: run these benchmarks, or all."""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from bartizan_connector.base.console import err
from bartizan_connector.base.errors import BartizanError

BENCHMARKS = ("adaptation", "query_tower", "collections", "embedded_store", "training_throughput", "triton_hop")
"""Each is a file, read only when it is asked for: what it needs may be missing where another one runs."""


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
            module = import_module(f"benchmarks.{name}")
            module.run(given.demo) if name == "query_tower" else module.run()
        except BartizanError as error:
            err.print(f"{name}: {error}", markup=False, style="red")
            code = max(code, error.exit_code)
    return code


if __name__ == "__main__":
    sys.exit(main())
