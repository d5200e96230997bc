"""An index that is built to its end: it is waited for again where the server takes it apart while it is examined."""

from types import SimpleNamespace
from typing import Any, cast

from bartizan_connector.store.collection import Leg
from bartizan_connector.store.milvus.building import Building
from bartizan_connector.store.milvus.choices import Outcome, Standing
from bartizan_connector.store.milvus.indexes import Indexes
from bartizan_connector.store.profiles import profile_of
from bartizan_connector.store.recall import Recall
from bartizan_connector.testing.rows import DENSE

LEG = Leg(name="dense", kind="dense", dim=4, space_id=DENSE.space_id)
ROWS = 3_000


class Server:
    """Has built an index; `taken_apart`: rows that it builds anew, each time that it is looked at some less."""

    def __init__(self, timeout: float) -> None:
        self.connection = SimpleNamespace(file=None)
        self.choices = SimpleNamespace(build_timeout=timeout, goal=0.9)
        self.taken_apart = 0
        self.ends = True
        self.kept: Outcome | None = None

    def standing(self, _: str) -> Standing:
        left = self.taken_apart
        if self.ends:
            self.taken_apart = max(0, left - 1_000)
        state = {"state": "Finished", "indexed_rows": ROWS - left, "pending_index_rows": left, "total_rows": ROWS}
        return Standing(name="IVF_FLAT", described=state)

    def remember(self, _: str, outcome: Outcome) -> None:
        self.kept = outcome

    def search_parameters(self, *_: Any) -> dict[str, Any]:
        return {}

    def reload(self) -> None: ...

    def rows(self) -> int:
        return ROWS

    def replace(self, *_: Any) -> None:
        self.taken_apart, self.ends = 0, True

    def broaden(self, *_: Any) -> None: ...


class Exam:
    """Found all, while the server puts its rows together anew."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def taken(self, _: Any) -> Recall:
        if self._server.kept is None:
            self._server.taken_apart = ROWS
        return Recall(recall=1.0, k=10, queries=1, rows=ROWS)


def built(server: Server) -> tuple[Outcome, list[tuple[int, int]]]:
    heard: list[tuple[int, int]] = []
    building = Building(cast(Indexes, server), lambda _: cast(Any, Exam(server)), lambda *_: [])
    outcome = building.finish(LEG, profile_of("ivf_flat"), lambda *counts: heard.append(counts))
    return outcome, heard


def test_what_is_put_together_anew_meanwhile_is_waited_for() -> None:
    server = Server(timeout=60.0)
    outcome, heard = built(server)
    assert (outcome.note, outcome.kind, outcome.recall) == ("", "IVF_FLAT", 1.0)
    assert heard == [(ROWS, ROWS), (0, ROWS), (1_000, ROWS), (2_000, ROWS), (ROWS, ROWS)]
    assert server.kept == outcome


def test_what_never_ends_then_is_replaced_too() -> None:
    server = Server(timeout=0.2)
    server.ends = False
    outcome, _ = built(server)
    assert "3,000 of 3,000 rows were not covered, and no more came in 0.2 s" in outcome.note
    assert (outcome.kind, outcome.recall) == ("HNSW", 1.0)
