"""Builds an index to its end: ordered, waited for, measured, broadened, and replaced where it does not do."""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from bartizan_connector.base.errors import BartizanError, Retry, Stop
from bartizan_connector.space.vectors import Vectors
from bartizan_connector.store.collection import Hit, Leg
from bartizan_connector.store.kinds import KINDS
from bartizan_connector.store.milvus.choices import FALL_BACK, Outcome
from bartizan_connector.store.milvus.failures import is_missing
from bartizan_connector.store.milvus.indexes import Indexes, fallen_back
from bartizan_connector.store.profiles import BROADEST, Profile
from bartizan_connector.store.recall import Exam, K, Recall

OnRows = Callable[[int, int], None]
Search = Callable[[Leg, Vectors, int], list[list[Hit]]]
_PAUSES = (0.05, 0.1, 0.2, 0.5)


class Building:
    """The builds of one collection. `exam` draws the questions of a leg, `search` asks its index."""

    def __init__(self, indexes: Indexes, exam: Callable[[Leg], Exam], search: Search) -> None:
        self._indexes = indexes
        self._exam = exam
        self._search = search
        self._unloaded: dict[str, str] = {}
        """Leg → why its first index could not be searched."""

    def begin(self, orders: Mapping[str, Profile]) -> None:
        """Order the indexes of these legs; from now on searches are answered again, for the time being slowly."""
        try:
            self._indexes.replace(orders, self._indexes.rows())
        except (Retry, Stop) as error:
            self._load_another(orders, error)

    def _load_another(self, orders: Mapping[str, Profile], error: BartizanError) -> None:
        """What a server has built, and then cannot load, would leave the collection without any search."""
        other = {leg: FALL_BACK[self._indexes.leg(leg).kind] for leg in orders}
        if type(error) not in (Retry, Stop) or is_missing(error) or other == dict(orders):
            raise error
        self._indexes.replace(other, self._indexes.rows())
        self._unloaded = {leg: f"the server could not load it ({error})" for leg in orders if orders[leg] != other[leg]}

    def finish(self, leg: Leg, profile: Profile, on_rows: OnRows | None = None) -> Outcome:
        """Wait until the index of that leg stands, and see that it finds what it should."""
        refused = self._indexes.standing(leg.name)
        if why := self._unloaded.get(leg.name):
            outcome = self._measured(leg, fallen_back(profile, FALL_BACK[leg.kind], why), on_rows)
        elif refused.is_of_outcome and refused.outcome.note and refused.outcome.asked == str(profile):
            outcome = self._measured(leg, refused.outcome, on_rows)  # the server would not take the order
        else:
            asked = Outcome(asked=str(profile), kind=KINDS[profile.kind].name)
            outcome = self._measured(leg, asked, on_rows)
            instead = FALL_BACK[leg.kind]
            if outcome.note and KINDS[profile.kind].name not in (KINDS[instead.kind].name, "FLAT"):
                outcome = self._instead(leg, profile, instead, outcome.note, on_rows)
        self._indexes.remember(leg.name, outcome)
        return outcome

    def _instead(self, leg: Leg, asked: Profile, instead: Profile, why: str, on_rows: OnRows | None) -> Outcome:
        """What every server can build, in place of what did not come to its end or finds too little."""
        self._indexes.replace({leg.name: instead}, self._indexes.rows())
        return self._measured(leg, fallen_back(asked, instead, why), on_rows)

    def _measured(self, leg: Leg, outcome: Outcome, on_rows: OnRows | None) -> Outcome:
        """The outcome with a recall, or with a note that says why there is none, or why it is too low."""
        why = waited(self._indexes, leg, on_rows)
        if why is None:
            try:
                if self._indexes.connection.file is None:
                    self._indexes.reload()
                outcome, recall = self._broadened(leg, outcome)
            except Retry as error:
                if outcome.kind == KINDS[FALL_BACK[leg.kind].kind].name:
                    raise
                return replace(outcome, note=f"the server could not load it ({error})")
            if recall.recall < self._indexes.choices.goal:
                why = (
                    f"it finds {recall.recall:.0%} of the nearest {recall.k} rows at its broadest, and "
                    f"{self._indexes.choices.goal:.0%} are asked for"
                )
            else:
                why = waited(self._indexes, leg, on_rows)  # rows that the server has put together meanwhile
                if why is None:
                    return outcome
        return replace(outcome, note="; ".join(told for told in (outcome.note, why) if told))

    def _broadened(self, leg: Leg, outcome: Outcome) -> tuple[Outcome, Recall]:
        """With the least factor that reaches the goal, or the one beyond which nothing changes."""
        exam, before = self._exam(leg), None
        outcome = replace(outcome, factor=1)
        while True:
            self._indexes.broaden(leg.name, outcome)
            recall = exam.taken(lambda vectors, k: self._search(leg, vectors, k))
            outcome = replace(outcome, recall=recall.recall, rows=recall.rows)
            now = self._indexes.search_parameters(leg, K)
            if recall.recall >= self._indexes.choices.goal or outcome.factor >= BROADEST or now == before:
                return outcome, recall
            before, outcome = now, replace(outcome, factor=2 * outcome.factor)


def waited(indexes: Indexes, leg: Leg, on_rows: OnRows | None) -> str | None:
    """Until the index of that leg covers all rows; else why it does not."""
    timeout, most, since, turn = indexes.choices.build_timeout, -1, time.monotonic(), 0
    while True:
        standing = indexes.standing(leg.name)
        covered, left, total = standing.counts
        if on_rows is not None:
            on_rows(covered, total)
        if standing.state == "finished":
            return None
        if standing.state.startswith("failed"):
            return f"the server could not build it ({standing.state})"
        if covered > most:
            most, since = covered, time.monotonic()
        elif time.monotonic() - since > timeout:
            return f"{left:,} of {total:,} rows were not covered, and no more came in {timeout:g} s"
        time.sleep(_PAUSES[min(turn, len(_PAUSES) - 1)])
        turn += 1
