"""`python -m benchmarks [NAME …]`: run these, or all; the options say of what, and how much."""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from bartizan_connector.base.console import err
from bartizan_connector.base.errors import BartizanError

BENCHMARKS = (
    "query_tower",
    "collections",
    "embedded_store",
    "words",
    "streaming",
    "training_throughput",
    "recipes",
    "adaptation",
    "studies",
    "token_tables",
    "triton_hop",
    "soak_triton",
)
"""Each is a file, read only when it is asked for: what it needs may be missing where another one runs."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmarks; 0 when each of them could be measured and met what it is held to."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--demo", type=Path, default=Path("bartizan-demo"), help="what `bartizan demo` left")
    parser.add_argument("--collection", default="scifact", help="recipes: learn from this collection, and judge on it")
    parser.add_argument("--sizes", help="rows of embedded_store, e.g. 5000,100000")
    parser.add_argument("--recipe", action="append", default=[], help="recipes: only this one; may be given again")
    parser.add_argument("--study", action="append", default=[], help="studies: only this one; may be given again")
    given = parser.parse_args(arguments)
    if unknown := [name for name in given.names if name not in BENCHMARKS]:
        parser.error(f"unknown benchmark {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    options: dict[str, tuple[Any, ...]] = {
        "query_tower": (given.demo,),
        "recipes": (given.recipe, given.collection),
        "studies": (given.study,),
    }
    if given.sizes:
        options["embedded_store"] = ([int(size) for size in given.sizes.split(",")],)
    code = 0
    for name in given.names or BENCHMARKS:
        try:
            module = import_module(f"benchmarks.{name}")
            module.run(*options.get(name, ()))
        except BartizanError as error:
            err.print(f"{name}: {error}", markup=False, style="red")
            code = max(code, error.exit_code)
    return code


if __name__ == "__main__":
    sys.exit(main())
