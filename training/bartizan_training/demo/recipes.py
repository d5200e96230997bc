"""The demo's recipe as its options want it."""

import tomllib
from importlib.resources import files

from bartizan_training import toml

_SEED = "\nseed = 0\n"
_QUICK = 10
"""The quick form takes a tenth of the steps."""


def text(*, seed: int, quick: bool, from_scratch: bool) -> str:
    """The shipped file, remarks and all; the quick form, which nobody should learn from, has none."""
    name = "recipe-from-scratch.toml" if from_scratch else "recipe.toml"
    shipped = files("bartizan_training").joinpath(f"demo/{name}").read_text(encoding="utf-8")
    chosen = shipped.replace(_SEED, f"\nseed = {seed}\n")
    if not quick:
        return chosen
    tables = tomllib.loads(chosen)
    for step in tables["steps"]:
        step["steps"] = max(1, step["steps"] // _QUICK)
    return toml.dump(tables)
