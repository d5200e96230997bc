"""What a served model says about itself: the contract between a Triton repository and the clients of its models.

A model's configuration carries the sealed spec of each version, and which version clients are to use. Each answer
carries the identity of the tower that gave it, from inside the graph: whatever happens to versions, replicas or
addresses meanwhile, a client knows whose vectors it holds.
"""

import re
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from bartizan_connector.base.errors import Stop, WrongUse
from bartizan_connector.space.spec import TowerSpec, require_same_space

TOWER_OUTPUT = "tower"
"""The output that names the tower: two int64 a row, which are the digits of its `tower_id`."""
INDICES_OUTPUT, WEIGHTS_OUTPUT = "indices", "weights"
"""What a sparse tower gives instead of `vectors`: its heaviest terms, heaviest first; a weight of zero is no term."""
VERSION_PARAMETER = "bartizan.version"
"""Which version clients use while it is ready; another one that is ready too is being tried."""
TOWER_ID_PARAMETER = "bartizan.tower_id"
SPACE_ID_PARAMETER = "bartizan.space_id"
_TOWER_PARAMETER = "bartizan.tower."
_INTERFACE = ("kind", "dim", "roles", "special_tokens", "tokenizer_hash")
"""What a client has fixed before it asks: a version that differs here would be fed with other tokens than it wants."""


def tower_parameter(version: int) -> str:
    """The name under which a version's sealed spec stands in the configuration."""
    return f"{_TOWER_PARAMETER}{version}"


def tower_mark(tower_id: str) -> npt.NDArray[np.int64]:
    """A `tower_id` as the two numbers that travel with each vector."""
    digits = re.fullmatch(r"tw-([0-9a-f]{32})", tower_id)
    if digits is None:
        raise WrongUse(f"{tower_id!r} is not a tower_id; expected tw- and 32 hexadecimal digits")
    return np.frombuffer(bytes.fromhex(digits[1]), dtype=">i8").astype(np.int64)


def served_version(parameters: Mapping[str, str], ready: list[int]) -> int | None:
    """The version to use: the one that is named while it is ready, else the newest that is."""
    named = parameters.get(VERSION_PARAMETER, "")
    if named.isdigit() and int(named) in ready:
        return int(named)
    return max(ready, default=None)


def served_spec(model: str, parameters: Mapping[str, str], version: int) -> TowerSpec:
    """The spec of a version, out of the model's configuration."""
    text = parameters.get(tower_parameter(version))
    if text is None:
        raise Stop(
            f"model '{model}' says of its version {version} not which tower it is: Bartizan did not write its "
            "configuration; export the tower with `bartizan export --format triton` and deploy that"
        )
    return TowerSpec.from_json(text, origin=f"the spec of model '{model}' version {version}")


def require_replacement(what: str, *, before: TowerSpec, after: TowerSpec) -> None:
    """Refuse a tower that cannot stand in for another: one of another space, or one that reads other tokens."""
    require_same_space(
        f"{what} cannot take the place of tower '{before.name}'",
        expected=before.space_id,
        came=after.space_id,
        way_out="A tower of another space is another model: export it under another --name, and re-index.",
    )
    unlike = [fact for fact in _INTERFACE if getattr(before, fact) != getattr(after, fact)]
    if unlike:
        raise WrongUse(
            f"{what} cannot take the place of tower '{before.name}' ({before.tower_id}): they differ in "
            f"{', '.join(unlike)}, so clients would send it tokens that it does not understand; export it under "
            "another --name, and point the clients at that"
        )


def model_name(spec: TowerSpec) -> str:
    """What a tower's model is called where nothing else is said: its name, in the letters that Triton takes."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", spec.name).strip("-.") or "tower"
