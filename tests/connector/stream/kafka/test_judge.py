"""The judge of the stories: what an observer may see of a document, and what not."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from bartizan_connector.store.collection import Head
from tests.connector.stream.kafka.model import Model, Seen

RECORDS = [
    SimpleNamespace(partition=0, offset=offset, key=b"d", value=b'{"text": "text %d"}' % offset) for offset in range(6)
]
GONE = -1


class Server:
    """Shows one document at one place after the other, the last for ever; at "kill" it dies, within a look."""

    def __init__(self, seen: Seen, shows: Sequence[int | str]) -> None:
        self._seen = seen
        self._shows = list(shows)

    def heads(self, ids: Sequence[str]) -> dict[str, Head]:
        offset = self._shows.pop(0) if len(self._shows) > 1 else self._shows[0]
        if offset == GONE:
            return {}
        return {"d": Head(id="d", version=10 + int(offset), hash="h", origin="kafka:c/0#t", offset=int(offset))}

    def get(self, ids: Sequence[str]) -> dict[str, Any]:
        if self._shows[0] == "kill":
            self._shows.pop(0)
            self._seen.lives_again()
        return {}


def judged(*places: int, killed_after: tuple[int, ...] = (), committed: tuple[int, ...] = ()) -> int:
    """One look each; the server is killed after so many looks, with that much committed."""
    seen, kills = Seen(["d"]), dict(zip(killed_after, committed, strict=True))
    for number, place in enumerate(places):
        if number in kills:
            seen.committed({0: kills[number]})
            seen.lives_again()
        seen.look(Server(seen, [place]))  # type: ignore[arg-type]
    return Model(RECORDS).judge_order(seen, by_rows=False)


@pytest.fixture(autouse=True)
def _no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.connector.stream.kafka.model.time.sleep", lambda _: None)


@pytest.mark.parametrize("places", [(3, 2), (3, GONE)])
def test_nothing_goes_back_while_the_server_lives(places: tuple[int, ...]) -> None:
    with pytest.raises(AssertionError, match="went back"):
        judged(*places)


@pytest.mark.parametrize(("places", "forgot"), [((1, 3, 5), 0), ((1, 5, 3, 4), 1), ((1, 5, 2, 3), 1)])
def test_a_server_that_was_killed_may_forget_what_was_not_committed(places: tuple[int, ...], forgot: int) -> None:
    assert judged(*places, killed_after=(2,), committed=(3,)) == forgot


@pytest.mark.parametrize("place", [1, GONE])
def test_what_was_committed_is_not_forgotten(place: int) -> None:
    with pytest.raises(AssertionError, match=r"was committed, and forgotten: .* and not 2"):
        judged(5, place, killed_after=(1,), committed=(3,))


def test_what_was_committed_once_is_not_forgotten_after_the_group_was_rewound() -> None:
    with pytest.raises(AssertionError, match=r"was committed, and forgotten: .* and not 3"):
        judged(5, 5, 2, killed_after=(1, 2), committed=(4, 1))


def test_after_the_first_look_nothing_goes_back_in_a_new_life_either() -> None:
    with pytest.raises(AssertionError, match="went back"):
        judged(5, 4, 3, killed_after=(1,), committed=(0,))


def test_what_is_wrong_for_a_moment_is_looked_at_again() -> None:
    seen = Seen(["d"])
    for shows in ([3], [1, GONE, 4]):
        seen.look(Server(seen, shows))  # type: ignore[arg-type]
    assert [look.heads["d"].offset for look in seen.looks] == [3, 4]
    assert seen.blinks == 2


def test_a_look_into_two_lives_is_none() -> None:
    seen = Seen(["d"])
    for shows in ([3], [5, "kill", 0], [2]):
        seen.look(Server(seen, shows))  # type: ignore[arg-type]
    assert [(look.life, look.heads["d"].offset) for look in seen.looks] == [(0, 3), (1, 2)]
