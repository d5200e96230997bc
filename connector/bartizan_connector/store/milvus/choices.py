"""Which index each leg of a collection in Milvus shall have, and what became of it: the order, and its outcome."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from bartizan_connector.base.errors import WrongUse
from bartizan_connector.store.collection import Leg
from bartizan_connector.store.kinds import AUTO, GOAL, KINDS, Kind, Value, kind_named
from bartizan_connector.store.profiles import Profile, build_parameters, require_fit, search_parameters, sent

BUILD_TIMEOUT = 1800.0
PROPERTY = "bartizan.index."
"""With the leg's name behind it: what became of the leg's order, kept with the collection."""
_SPARSE = Profile(kind="sparse_inverted_index")
FALL_BACK = {"dense": Profile(kind="hnsw"), "sparse": _SPARSE}
"""What every server can build."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """`[backend] index`, `[backend.indexes]`, and how long and how well an index must do."""

    default: Profile = field(default_factory=Profile)
    """Of every dense leg that is not named."""
    legs: Mapping[str, Profile] = field(default_factory=dict)
    build_timeout: float = BUILD_TIMEOUT
    """Seconds without any more rows covered, after which an index counts as one that is never built."""
    goal: float = GOAL

    def wanted(self, leg: Leg, *, in_file: bool) -> Profile:
        """The profile of a leg. `auto` is a graph on a server and none in a Milvus Lite file: there a graph under a
        filter misses rows, and its building stalls writes and the close, while a call's cost in Python hides what it
        saves up to about 20,000 rows."""
        profile = self.legs.get(leg.name) or (self.default if leg.kind == "dense" else Profile())
        if profile.kind == AUTO:
            return _SPARSE if leg.kind == "sparse" else Profile(kind="flat" if in_file else "hnsw")
        require_possible(profile, leg, in_file=in_file)
        return profile

    def told(self, leg: Leg) -> str:
        """The line of the configuration that asks."""
        if leg.name in self.legs:
            return f'[backend.indexes] {leg.name} = "{self.legs[leg.name]}"'
        return f'[backend] index = "{self.default}"'


def require_possible(profile: Profile, leg: Leg, *, in_file: bool) -> None:
    """Refuse what the leg or the place cannot have."""
    require_fit(profile, leg)
    if in_file and profile.kind != AUTO and not KINDS[profile.kind].in_lite:
        able = ", ".join(name for name, kind in KINDS.items() if kind.in_lite and kind.leg == leg.kind)
        raise WrongUse(
            f"an index of kind {profile.kind} for the {leg.name} leg: Milvus Lite builds none (it accepts the name and "
            f"compares every row); it has {able}. Ask a Milvus server for it"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of an order."""

    asked: str = ""
    """The profile as it was asked for."""
    kind: str = ""
    """What Milvus has since."""
    factor: int = 1
    """How many times broader a search is made."""
    recall: float | None = None
    rows: int = 0
    note: str = ""

    def text(self) -> str:
        """As it is kept."""
        return json.dumps(asdict(self))

    @classmethod
    def kept(cls, properties: Mapping[str, Any], leg: str) -> "Outcome":
        """What is kept with the collection; nothing, where none of ours is."""
        try:
            return cls(**json.loads(properties[PROPERTY + leg]))
        except (KeyError, TypeError, ValueError):
            return cls()


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """The index of one leg as Milvus describes it."""

    name: str
    """Of the kind, as Milvus calls it; empty: there is none."""
    described: Mapping[str, Any] = field(default_factory=dict)
    outcome: Outcome = Outcome()

    @property
    def kind(self) -> Kind | None:
        return kind_named(self.name)

    @property
    def counts(self) -> tuple[int, int, int]:
        """Rows covered, not yet covered, and of how many."""
        covered, left, total = (
            int(self.described.get(key) or 0) for key in ("indexed_rows", "pending_index_rows", "total_rows")
        )
        return covered, left, total

    @property
    def state(self) -> str:
        if not self.name:
            return "missing"
        told = str(self.described.get("state", ""))
        why = self.described.get("index_state_fail_reason") or self.described.get("fail_reason")
        if told == "Failed":
            return f"failed: {why}" if why else "failed"
        return "finished" if told == "Finished" and not self.counts[1] else "building"

    @property
    def build(self) -> dict[str, Value]:
        """The parameters that it says it was built with."""
        known = self.kind.build if self.kind else {}
        return {key: str(self.described[key]) for key in known if key in self.described}

    @property
    def is_of_outcome(self) -> bool:
        """Whether the outcome speaks of this index."""
        return bool(self.name) and self.outcome.kind == self.name

    def search(self, wanted: Profile, k: int) -> dict[str, Value]:
        """The parameters of a search for k rows."""
        given = wanted.search if KINDS[wanted.kind].name == self.name else {}
        known = self.outcome if self.is_of_outcome else Outcome()
        return sent(search_parameters(self.kind, given, self.build, k, known.rows, known.factor))


def order(profile: Profile, leg: Leg, rows: int) -> dict[str, Any]:
    """What Milvus is asked to build."""
    return {
        "index_type": KINDS[profile.kind].name,
        "metric_type": "IP",
        "params": sent(build_parameters(profile, leg, rows)),
    }
