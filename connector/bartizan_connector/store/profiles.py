"""Index profiles: the kind of index that a leg shall have and its parameters, checked before any server is asked."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from bartizan_connector.base.errors import WrongUse
from bartizan_connector.store.collection import Leg
from bartizan_connector.store.kinds import AUTO, KINDS, MAX_DIM, Kind, Limit, Value

_SEGMENT_BYTES = 1 << 30
"""A server's segment, which has an index of its own."""
_FEWEST_LISTS = 128
_LEAST_EF = 128
"""Recall@10 at 100,000 rows was .997 with 64; twice as much costs little beside the call itself."""
_PER_LIST = 4
"""So many times k rows are looked at, at the least."""
BROADEST = 64
"""A search is made so many times broader at the most, when it is found to miss rows."""
NONE: Mapping[str, Value] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What a person asks for; a parameter that is not given is chosen by the dimension and the number of rows."""

    kind: str = AUTO
    build: Mapping[str, Value] = field(default_factory=dict)
    search: Mapping[str, Value] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Every fault that can be told without knowing the leg."""
        if fault := _fault(self):
            raise WrongUse(fault)

    @property
    def is_bare(self) -> bool:
        """Whether nothing but the kind is asked for."""
        return not self.build and not self.search

    def __str__(self) -> str:
        given = {**self.build, **({"search": dict(self.search)} if self.search else {})}
        return self.kind + (f" {given}" if given else "")


def profile_of(given: object) -> Profile:
    """A profile as it is written: `"hnsw"`, or `{ kind = "hnsw", M = 30, search = { ef = 100 } }`."""
    if isinstance(given, Profile):
        return given
    if isinstance(given, str):
        return Profile(kind=str(given))
    if not isinstance(given, Mapping):
        raise WrongUse(f"must be the kind of an index ({_names()}) or a table with a kind, but {given!r:.80} came")
    if "kind" not in given:
        raise WrongUse(f'the kind is missing, as in {{ kind = "hnsw", M = 30 }}; there are {_names()}')
    kind, search = given["kind"], given.get("search", {})
    if not isinstance(kind, str):
        raise WrongUse(f"the kind must be a text ({_names()}), but {kind!r:.80} came")
    if not isinstance(search, Mapping):
        raise WrongUse(f"search must be a table of search parameters, but {search!r:.80} came")
    build = {key: value for key, value in given.items() if key not in ("kind", "search")}
    return Profile(kind=str(kind), build=build, search=dict(search))


def require_fit(profile: Profile, leg: Leg) -> None:
    """Refuse a profile that this leg cannot have."""
    if profile.kind == AUTO:
        return
    kind, where = KINDS[profile.kind], f"an index of kind {profile.kind} for the {leg.name} leg"
    if kind.leg != leg.kind:
        fitting = ", ".join(name for name, each in KINDS.items() if each.leg == leg.kind)
        raise WrongUse(f"{where}: that kind is for {kind.leg} legs, and this is a {leg.kind} one; there are {fitting}")
    if leg.kind == "dense" and leg.dim > MAX_DIM:
        raise WrongUse(f"{where}: a vector has at most {MAX_DIM:,} dimensions there, and these have {leg.dim:,}")
    pieces = profile.build.get("m")
    if isinstance(pieces, int) and pieces and leg.dim % pieces:
        near = ", ".join(str(each) for each in _divisors(leg.dim) if each <= max(64, leg.dim // 2))
        raise WrongUse(f"{where}: m = {pieces} does not divide the dimension, {leg.dim}; these do: {near}")


def build_parameters(profile: Profile, leg: Leg, rows: int) -> dict[str, Value]:
    """What the index is built with, for so many rows. A server's segment has an index of its own, so no more rows than
    one holds count."""
    kind = KINDS[profile.kind]
    lists = min(65_536, max(_FEWEST_LISTS, round(4 * math.sqrt(min(rows, _SEGMENT_BYTES // (4 * leg.dim))))))
    defaults: dict[str, Value] = {"nlist": lists} if "nlist" in kind.build else {}
    if profile.kind == "hnsw":
        defaults = {"M": 16, "efConstruction": 200}
    elif profile.kind in ("ivf_pq", "gpu_ivf_pq"):
        defaults |= {"m": max(each for each in _divisors(leg.dim) if each <= max(1, leg.dim // 2)), "nbits": 8}
    elif profile.kind == "scann":
        defaults |= {"with_raw_data": True}
    elif profile.kind == "gpu_cagra":
        degree = profile.build.get("graph_degree")
        broad = 2 * degree if isinstance(degree, int) else 64
        defaults = {"intermediate_graph_degree": broad, "graph_degree": min(32, _half(profile)), **_CAGRA}
    return defaults | dict(profile.build)


_CAGRA: Mapping[str, Value] = MappingProxyType({"build_algo": "NN_DESCENT", "adapt_for_cpu": False})
"""Said, as servers and their documentation differ on what is taken otherwise."""


def search_parameters(
    kind: Kind | None, given: Mapping[str, Value], built: Mapping[str, Value], k: int, rows: int = 0, factor: int = 1
) -> dict[str, Value]:
    """What a search for k rows sends: what was asked for, raised to what k needs and `factor` times beyond. `built`: as
    the index was; `rows`: how many there were then."""
    if kind is None or not kind.search:
        return {}
    found = dict(given)
    lists = built.get("nlist")
    lists = int(lists) if isinstance(lists, int | str) and str(lists).isdigit() else _FEWEST_LISTS
    if kind.breadth == "ef":
        found["ef"] = _within(kind, "ef", factor * max(k, int(given.get("ef", max(_LEAST_EF, 2 * k)))))
    elif kind.breadth == "search_list":
        found["search_list"] = _within(kind, "search_list", factor * max(k, int(given.get("search_list", 100))))
    elif kind.breadth == "itopk_size":
        least = factor * max(k, int(given.get("itopk_size", max(128, 2 * k))))
        found["itopk_size"] = -(-least // 32) * 32
        found.setdefault("search_width", 4)
        if "ef" in given or built.get("adapt_for_cpu") in (True, "true", "True"):
            found["ef"] = factor * max(k, int(given.get("ef", max(_LEAST_EF, 2 * k))))
    elif kind.breadth == "nprobe":
        needed = -(-_PER_LIST * k * lists // rows) if rows else 1
        probes = factor * max(needed, int(given.get("nprobe", max(8, lists // 8))))
        found["nprobe"] = min(probes, lists)
        if kind.name == "SCANN":
            found["reorder_k"] = factor * max(k, int(given.get("reorder_k", max(_LEAST_EF, 4 * k))))
    return found


def sent(parameters: Mapping[str, Value]) -> dict[str, Value]:
    """As a server takes them: truths are words."""
    return {key: str(value).lower() if isinstance(value, bool) else value for key, value in parameters.items()}


def _half(profile: Profile) -> int:
    """The degree of a graph that was cut out of a broader one: less than that one's."""
    broad = profile.build.get("intermediate_graph_degree", 64)
    return max(1, int(broad) // 2) if isinstance(broad, int) else 32


def _within(kind: Kind, name: str, value: int) -> int:
    return int(min(value, kind.search[name].most))


def _fault(profile: Profile) -> str | None:
    if profile.kind == AUTO:
        return None if profile.is_bare else f'kind = "{AUTO}" chooses for itself; name a kind to set parameters'
    if profile.kind not in KINDS:
        shown = f"'{profile.kind}'" if profile.kind.isidentifier() else "that came"  # never what may be an address
        return f"the kind {shown:.80} is not known; there are {_names()}"
    kind = KINDS[profile.kind]
    for given, known, where in ((profile.build, kind.build, ""), (profile.search, kind.search, "search.")):
        for name, value in given.items():
            if name not in known:
                return f"{where}{name} is no parameter of {profile.kind}; {_known(kind)}"
            if told := known[name].fault(value):
                return f"{where}{name} of {profile.kind} {told}, but {value!r:.80} came"
    return _together(profile)


def _together(profile: Profile) -> str | None:
    """What no parameter breaks alone."""
    broad, degree = (profile.build.get(name) for name in ("intermediate_graph_degree", "graph_degree"))
    if isinstance(degree, int) and isinstance(broad, int) and degree >= broad:
        return f"graph_degree = {degree} of {profile.kind} must be below intermediate_graph_degree = {broad}"
    lists, probes = profile.build.get("nlist"), profile.search.get("nprobe")
    if isinstance(lists, int) and isinstance(probes, int) and probes > lists:
        return f"search.nprobe = {probes} of {profile.kind} must be at most nlist = {lists}"
    return None


def _known(kind: Kind) -> str:
    def told(names: Mapping[str, Limit]) -> str:
        return ", ".join(names) or "none"

    return f"there are: {told(kind.build)}; and in search: {told(kind.search)}"


def _names() -> str:
    return ", ".join((AUTO, *KINDS))


def _divisors(number: int) -> list[int]:
    return [each for each in range(1, number + 1) if number % each == 0]
