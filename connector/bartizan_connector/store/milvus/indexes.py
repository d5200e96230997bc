"""The indexes of one collection: made where they are missing, compared with the configuration, built anew on demand."""

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from threading import Event, Lock
from typing import Any, TypeVar

from pymilvus import MilvusClient

from bartizan_connector.base.errors import BartizanError, Retry, Stop, WrongUse
from bartizan_connector.store.collection import Collection, Leg
from bartizan_connector.store.kinds import KINDS, Kind, Value, keeps_vectors
from bartizan_connector.store.milvus.choices import FALL_BACK, PROPERTY, Choices, Outcome, Standing, order
from bartizan_connector.store.milvus.connection import Connection
from bartizan_connector.store.milvus.failures import calling
from bartizan_connector.store.milvus.ledger import Ledger
from bartizan_connector.store.milvus.reloading import Reloading
from bartizan_connector.store.profiles import Profile

log = logging.getLogger(__name__)
T = TypeVar("T")

_OLDEST_TO_READ_CODES = (2, 4)
"""2.3.5 on storage of its own machine deletes the stored vectors that it reads under an index that keeps none."""
_LOOKED = 60.0
"""Seconds after which what stands there is looked at again: another may have built it anew."""


class Indexes:
    """All stores of a collection share one, so that their searches wait while it is built anew."""

    def __init__(self, connection: Connection, physical: str, collection: Collection, choices: Choices) -> None:
        self.connection = connection
        self.choices = choices
        self.building = Lock()
        """Of whoever builds an index anew."""
        self._physical = physical
        self._collection = collection
        self._ledger = Ledger(connection, physical)
        self.reloading = Reloading(connection, (physical, self._ledger.name), self.building)
        self._searchable = Event()
        self._searchable.set()
        self._rebuilt = 0
        self._seen: Mapping[str, Standing] = {}
        self._looked = 0.0

    @property
    def is_searchable(self) -> bool:
        return self._searchable.is_set()

    def complete(self, seconds: float | None = None) -> None:
        """Make what is missing, and load; rows and ledger load at the same time. `seconds`: what many rows may take."""
        client, timeout = self.connection.client, self.connection.timeout
        with calling(self.connection.place):
            self._make_ledger()
            for leg in self._collection.legs:
                self.make(leg, self.wanted(leg))
            client.load_collection(self._ledger.name, timeout=timeout, _async=True)
            client.load_collection(self._physical, timeout=seconds or timeout)
            client.load_collection(self._ledger.name, timeout=timeout)

    @property
    def patience(self) -> float:
        """Seconds that loading many rows may take."""
        return max(self.connection.timeout, self.choices.build_timeout)

    def remarks(self) -> Sequence[str]:
        """The indexes that are not as the configuration asks, or that find too little."""
        seen = self._look()
        return [told for leg in self._collection.legs if (told := self._remark(leg, seen[leg.name]))]

    def standing(self, leg: str) -> Standing:
        """The index of a leg, as of now."""
        return self._look()[leg]

    def search_parameters(self, leg: Leg, k: int) -> dict[str, Any]:
        """What a search of that leg for k rows sends."""
        if time.monotonic() - self._looked > _LOOKED:
            try:
                self._look()
            except BartizanError as error:
                log.debug("the indexes of %s were not looked at: %s", self._physical, error)
                self._looked = time.monotonic()
        return {"metric_type": "IP", "params": self._seen[leg.name].search(self.wanted(leg), k)}

    def most_results(self, leg: Leg) -> int:
        """How many rows one search of that leg gives at the most."""
        standing = self._seen.get(leg.name)
        kind = standing.kind if standing else None
        return kind.most_results if kind else KINDS["flat"].most_results

    def leg(self, name: str) -> Leg:
        """The leg of that name."""
        return self._collection.leg(name)

    def wanted(self, leg: Leg) -> Profile:
        """As the configuration asks."""
        return self.choices.wanted(leg, in_file=self.connection.file is not None)

    def require_harmless(self, leg: Leg, profile: Profile) -> None:
        """Refuse to order what makes it a loss to read vectors."""
        if self._loses_vectors(KINDS.get(profile.kind), profile.build):
            raise WrongUse(
                f"an index of kind {profile} for the {leg.name} leg keeps no vectors, and {self._server} deletes "
                "stored vectors that are read under such an index; it needs 2.4 or newer. ivf_flat, hnsw and scann "
                "with its raw data keep them"
            )

    def require_readable(self, fields: Iterable[str]) -> None:
        """Refuse to read vectors where the server would delete them, whoever built the index."""
        for leg in self._collection.legs:
            standing = self._seen.get(leg.name)
            if leg.name in fields and standing and self._loses_vectors(standing.kind, standing.build):
                raise Stop(
                    f"the {leg.name} leg of collection '{self._collection.name}' has a {standing.name} index, which "
                    f"keeps no vectors, and {self._server} deletes stored vectors that are read under such an index; "
                    f"bartizan index build --leg {leg.name} --kind hnsw makes one that keeps them"
                )

    def _loses_vectors(self, kind: Kind | None, build: Mapping[str, Value]) -> bool:
        is_of_codes = kind is not None and not keeps_vectors(kind, build)
        return is_of_codes and self.connection.is_older_than(_OLDEST_TO_READ_CODES)

    @property
    def _server(self) -> str:
        return f"the Milvus server at {self.connection.place} ({self.connection.version})"

    def remember(self, leg: str, outcome: Outcome) -> None:
        """Keep with the collection what became of an order, for all who search it."""
        with calling(self.connection.place):
            self.connection.client.alter_collection_properties(
                self._physical, {PROPERTY + leg: outcome.text()}, timeout=self.connection.timeout
            )
        self._look()

    def broaden(self, leg: str, outcome: Outcome) -> None:
        """Search here as this outcome says, before anybody else does."""
        self._seen = {**self._seen, leg: replace(self._seen[leg], outcome=outcome)}

    def rows(self) -> int:
        """About how many there are, whether they can be searched or not."""
        with calling(self.connection.place):
            told = self.connection.client.get_collection_stats(self._physical, timeout=self.connection.timeout)
        return int(told.get("row_count", 0))

    def replace(self, orders: Mapping[str, Profile], rows: int) -> None:
        """Begin to build the indexes of these legs anew. Milvus answers no search in between; what a kill cuts off is
        completed when the collection is opened next."""
        client, timeout = self.connection.client, self.connection.timeout
        self._searchable.clear()
        try:
            with calling(self.connection.place):
                client.release_collection(self._physical, timeout=timeout)
                for leg in orders:
                    for name in client.list_indexes(self._physical, field_name=leg, timeout=timeout):
                        client.drop_index(self._physical, name, timeout=timeout)
                for leg, profile in orders.items():
                    self.make(self._collection.leg(leg), profile, rows)
            self.complete(self.patience)
            self._look()
        finally:
            self._rebuilt += 1
            self._searchable.set()

    def reload(self) -> None:
        """Let the server search by what it has built: until then it compares the rows that it has loaded."""
        client, timeout = self.connection.client, self.connection.timeout
        self._searchable.clear()
        try:
            with calling(self.connection.place):
                client.release_collection(self._physical, timeout=timeout)
                client.load_collection(self._physical, timeout=self.patience)
        finally:
            self._rebuilt += 1
            self._searchable.set()

    def searched(self, search: Callable[[], T], deadline: float) -> T:
        """What the search gives, once there are indexes: one that they are taken away under begins again, also where
        the server did not refuse it, but answered from what it had not yet put away."""
        while True:
            self._searchable.wait(max(0.0, deadline - time.monotonic()))
            rebuilt = self._rebuilt
            try:
                answer = search()
            except Retry:
                if self._is_settled(rebuilt, deadline):
                    raise
            else:
                if self._is_settled(rebuilt, deadline):
                    return answer

    def _is_settled(self, rebuilt: int, deadline: float) -> bool:
        """Whether nothing was taken away since then, or there is no time to search again."""
        return (rebuilt == self._rebuilt and self.is_searchable) or time.monotonic() > deadline

    def make(self, leg: Leg, profile: Profile, rows: int = 0) -> None:
        """Order an index where there is none; of a kind that every server builds where this one refuses."""
        client, timeout = self.connection.client, self.connection.timeout
        with calling(self.connection.place):
            if client.list_indexes(self._physical, field_name=leg.name, timeout=timeout):
                return
        try:
            self._order(leg, profile, rows)
        except Stop as error:
            instead = FALL_BACK[leg.kind]
            if type(error) is not Stop or profile == instead:
                raise
            self._order(leg, instead, rows)
            self.remember(leg.name, fallen_back(profile, instead, f"the server refused it ({error})"))

    def _order(self, leg: Leg, profile: Profile, rows: int) -> None:
        index = MilvusClient.prepare_index_params(leg.name, **order(profile, leg, rows))
        with calling(self.connection.place):
            self.connection.client.create_index(self._physical, index, timeout=self.connection.timeout, sync=False)

    def _make_ledger(self) -> None:
        client, timeout, name = self.connection.client, self.connection.timeout, self._ledger.name
        if not client.list_indexes(name, field_name="dummy", timeout=timeout):
            client.create_index(name, self._ledger.index(), timeout=timeout, sync=False)

    def _look(self) -> Mapping[str, Standing]:
        client, timeout = self.connection.client, self.connection.timeout
        found = {}
        with calling(self.connection.place):
            properties = client.describe_collection(self._physical, timeout=timeout).get("properties", {})
            for leg in self._collection.legs:
                described: Mapping[str, Any] = {}
                for name in client.list_indexes(self._physical, field_name=leg.name, timeout=timeout):
                    described = client.describe_index(self._physical, name, timeout=timeout) or {}
                found[leg.name] = Standing(
                    name=str(described.get("index_type", "")),  # none: another builds it anew just now
                    described=described,
                    outcome=Outcome.kept(properties, leg.name),
                )
        self._seen, self._looked = found, time.monotonic()
        return found

    def _remark(self, leg: Leg, standing: Standing) -> str | None:
        wanted, outcome = self.wanted(leg), standing.outcome
        where = f"the {leg.name} leg of collection '{self._collection.name}'"
        if outcome.note and standing.is_of_outcome and outcome.asked == str(wanted):
            return f"{where}: {outcome.note}"
        if differs := _difference(standing, wanted):
            return (
                f"{where} has a {standing.name or 'missing'} index{differs[0]}, but {self.choices.told(leg)} asks for "
                f"{differs[1]} here; bartizan index build or ingest --reindex builds it anew"
            )
        covered, left, total = standing.counts
        if left and standing.kind and standing.kind.may_never_end:
            return (
                f"{where}: {covered:,} of {total:,} rows are covered by the {standing.name} index; bartizan index "
                "build waits for it, and makes another where the server never ends"
            )
        return None


def fallen_back(asked: Profile, instead: Profile, why: str) -> Outcome:
    """What is kept of an order that could not be carried out."""
    has = KINDS[instead.kind].name
    note = f"a {KINDS[asked.kind].name} index was asked for, but {why}; a {has} index is there instead"
    return Outcome(asked=str(asked), kind=has, note=note)


def _difference(standing: Standing, wanted: Profile) -> tuple[str, str] | None:
    """What is there and what was asked for, where they are not the same."""
    name = KINDS[wanted.kind].name
    if standing.name != name:
        return "", name
    built = standing.build
    other = {key: value for key, value in wanted.build.items() if key in built and built[key] != _word(value)}
    if not other:
        return None
    has = ", ".join(f"{key} = {built[key]}" for key in other)
    return f" with {has}", ", ".join(f"{key} = {value}" for key, value in other.items())


def _word(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
