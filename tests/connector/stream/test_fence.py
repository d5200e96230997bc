"""What is newer: a plan is what an oracle does with one change after the other; and each rule by its example."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bartizan_connector.store.collection import Head
from bartizan_connector.stream.fence import Plan, head_of, opened, plan
from bartizan_connector.stream.records import Change, Put, Remove
from bartizan_connector.stream.versions import NUMBER_BITS, latest, stamp

NOW = 20
"""The highest version of the present in the tests that make versions up."""


def put(text: str, version: int, origin: str = "", offset: int = 0, id: str = "a") -> Put:
    return Put(id=id, text=text, version=version, origin=origin, offset=offset)


def removal(version: int, origin: str = "", offset: int = 0) -> Remove:
    return Remove(id="a", version=version, origin=origin, offset=offset)


def after(*changes: Change, now: int = NOW) -> Head:
    """The head of one id when each change came in a batch of its own."""
    heads: dict[str, Head] = {}
    for change in changes:
        heads |= {head.id: head for head in plan([change], heads, now=now).heads}
    return heads["a"]


# ---- the oracle


class Oracle:
    """One id, one change at a time, each rule spelt out on plain values."""

    def __init__(self, head: Head | None) -> None:
        self.rows = head
        """Whose content the rows are."""
        self.head = head

    def take(self, change: Change, now: int) -> str:
        head = self.head
        if head is None:
            return self._store(change, change.version)
        torn = head.hash == "" and not head.deleted
        if change.origin == "":
            newer, version = change.version > head.version, change.version
            again = change.version == head.version
        elif change.origin == head.origin:
            newer, version = change.offset > head.offset, max(change.version, head.version + 1)
            again = change.offset == head.offset
            if again:
                version = head.version
        elif not change.late and change.origin.split("#")[0] == head.origin.split("#")[0]:
            newer, again, version = True, False, max(change.version, head.version + 1)
        else:
            newer, version = change.version > head.version, change.version
            again = change.version == head.version
            ahead = head.origin != "" and head.version > now and not change.late
            if not newer and not (again and torn) and ahead:
                newer, again, version = True, False, head.version + 1
        if newer or (again and torn):
            return self._store(change, version)
        same = again or change.version == head.version
        alike = head.deleted if isinstance(change, Remove) else not head.deleted and change.hash == head.hash
        return "known" if same and not torn and alike else "stale"

    def _store(self, change: Change, version: int) -> str:
        self.head = head_of(change, version)
        return "stored"


ORIGINS = ("", "file#1", "file#2", "topic/0", "topic/1")
TEXTS = ("apple", "banana")

placed = st.fixed_dictionaries(
    {
        "version": st.integers(0, 30),
        "origin": st.sampled_from(ORIGINS),
        "offset": st.integers(0, 4),
        "late": st.booleans(),
    }
)
some_change = st.builds(
    lambda text, place, id: Remove(id=id, **place) if text is None else Put(id=id, text=text, **place),
    st.sampled_from(TEXTS) | st.none(),
    placed,
    st.sampled_from("ab"),
)


@st.composite
def some_head(draw: st.DrawFn) -> Head:
    change = draw(some_change)
    head = head_of(replace(change, id="a"), change.version)
    return opened(head) if draw(st.booleans()) and not head.deleted else head


@settings(max_examples=400)
@given(changes=st.lists(some_change, max_size=8), head=some_head() | st.none(), now=st.integers(0, 35))
def test_a_plan_does_what_one_change_after_the_other_would_do(
    changes: list[Change], head: Head | None, now: int
) -> None:
    heads = {} if head is None else {head.id: head}
    oracles = {"a": Oracle(head), "b": Oracle(None)}
    for change in changes:
        oracles[change.id].take(change, now)
    todo = plan(changes, heads, now=now)
    ended = {**heads, **{each.id: each for each in todo.heads}}
    assert ended == {id: oracle.head for id, oracle in oracles.items() if oracle.head is not None}
    groups = grouped(todo)
    assert sorted(map(id, groups)) == sorted(map(id, changes)), "every change is in exactly one group"
    assert len({change.id for change in todo.counted.values()}) == len(groups) - len(todo.stale)


@settings(max_examples=300)
@given(change=some_change, head=some_head(), now=st.integers(0, 35))
def test_a_plan_puts_one_change_where_the_oracle_puts_it(change: Change, head: Head, now: int) -> None:
    change = replace(change, id="a")
    verdict = Oracle(head).take(change, now)
    todo = plan([change], {"a": head}, now=now)
    stored = bool(todo.write or todo.delete or todo.advance)
    assert (stored, bool(todo.known), bool(todo.stale)) == (verdict == "stored", verdict == "known", verdict == "stale")
    if isinstance(change, Put) and stored:
        assert bool(todo.advance) == (not head.deleted and head.hash == change.hash)


@given(changes=st.lists(some_change, max_size=8), cut=st.integers(0, 8), now=st.integers(0, 35))
def test_a_batch_may_be_cut_anywhere(changes: list[Change], cut: int, now: int) -> None:
    first = plan(changes[:cut], {}, now=now)
    heads = {head.id: head for head in first.heads}
    second = plan(changes[cut:], heads, now=now)
    heads |= {head.id: head for head in second.heads}
    assert heads == {head.id: head for head in plan(changes, {}, now=now).heads}


@given(changes=st.lists(some_change, min_size=1, max_size=8), now=st.integers(0, 35))
def test_the_versions_of_an_id_always_grow(changes: list[Change], now: int) -> None:
    heads: dict[str, Head] = {}
    for change in changes:
        for head in plan([change], heads, now=now).heads:
            assert head.id not in heads or head.version > heads[head.id].version
            heads[head.id] = head


@given(
    texts=st.lists(st.sampled_from(TEXTS) | st.none(), min_size=1, max_size=8),
    clocks=st.lists(st.integers(0, 30), min_size=8, max_size=8),
    again=st.lists(st.integers(0, 7), max_size=8),
    now=st.integers(0, 35),
)
def test_within_one_origin_no_clock_loses_anything_and_no_replay_comes_back(
    texts: Sequence[str | None], clocks: Sequence[int], again: Sequence[int], now: int
) -> None:
    log: list[Change] = [
        removal(clocks[offset], "topic/0", offset) if text is None else put(text, clocks[offset], "topic/0", offset)
        for offset, text in enumerate(texts)
    ]
    head = after(*log, *(log[offset] for offset in again if offset < len(log)), now=now)
    assert (head.offset, head.deleted) == (len(log) - 1, texts[-1] is None)


def grouped(todo: Plan) -> list[Change]:
    moved: list[tuple[Change, Head]] = [*todo.write, *todo.delete, *todo.advance]
    return [*(change for change, _ in moved), *todo.known, *todo.stale]


# ---- each rule by its example


def test_a_version_of_the_records_own_decides_alone() -> None:
    assert after(put("one", 5), put("late", 4), put("other", 5)) == after(put("one", 5))
    assert after(put("one", 5), put("two", 6)).version == 6
    far = after(put("one", 1000), put("two", 1001))
    assert far.version == 1001
    assert after(put("one", 1000), put("late", 999)).version == 1000, "versions of one's own are no times"


def test_of_one_origin_the_offset_decides_whatever_the_clocks_said() -> None:
    head = after(put("one", 10, "topic/0", 1), put("two", 3, "topic/0", 2))
    assert (head.version, head.offset) == (11, 2), "a clock that went back loses nothing"
    assert after(put("one", 10, "topic/0", 2), put("replay", 15, "topic/0", 1)).offset == 2
    assert after(put("one", 10, "topic/0", 2), put("one", 15, "topic/0", 2)).version == 10


def test_of_two_origins_the_version_decides() -> None:
    loaded, news = put("loaded", 10, "file#1", 7), put("news", 12, "topic/0", 0)
    assert after(loaded, news).origin == "topic/0"
    assert after(loaded, news, loaded).origin == "topic/0", "a file that is read again brings nothing old back"
    assert after(loaded, put("before the load", 9, "topic/0", 0)).origin == "file#1"
    assert after(news, loaded) == after(news)


def test_what_a_file_says_now_counts_even_when_its_time_went_back() -> None:
    edited, restored = put("edited", 12, "file#2", 1), put("as it was", 8, "file#1", 1)
    head = after(restored, edited, restored)
    assert (head.origin, head.version) == ("file#1", 13)
    news = put("news", 15, "topic/0", 0)
    assert after(edited, news, restored).origin == "topic/0", "but nothing that came from elsewhere since"


def test_a_delete_keeps_its_place_so_that_no_replay_resurrects() -> None:
    log: list[Change] = [put("one", 5, "topic/0", 1), removal(6, "topic/0", 2)]
    assert after(*log) == Head(id="a", version=6, deleted=True, origin="topic/0", offset=2)
    assert after(*log, log[0]).deleted
    assert after(*log, put("old file", 5, "file#1", 9)).deleted
    assert not after(*log, put("again", 3, "topic/0", 3)).deleted


def test_a_clock_that_was_ahead_stops_nothing_that_arrives_from_elsewhere() -> None:
    ahead, news = put("ahead", 1000, "topic/0", 5), put("news", 15, "topic/1", 0)
    head = after(ahead, news)
    assert (head.origin, head.version) == ("topic/1", 1001)
    assert after(ahead, put("replay", 999, "topic/0", 4)) == after(ahead), "of its own origin a replay stays one"
    assert after(ahead, news, now=2000) == after(ahead, now=2000), "once that time has come it is as any other"
    assert after(ahead, put("own", 15)) == after(ahead), "a version of the record's own is compared as it is"


def test_what_cannot_be_told_apart_is_a_replay_from_elsewhere_while_the_head_is_still_to_come() -> None:
    old, ahead = put("old", 10, "file#1", 1), put("newer", 1000, "topic/0", 5)
    assert after(old, ahead, old).origin == "file#1"
    assert after(old, ahead, old, now=1000).origin == "topic/0"


def test_an_id_whose_write_never_ended_is_repaired_by_its_own_change_and_by_nothing_older() -> None:
    torn = opened(after(put("one", 10, "topic/0", 3)))
    assert (torn.version, torn.origin, torn.offset, torn.hash) == (10, "topic/0", 3, "")
    repaired = plan([put("one", 4, "topic/0", 3)], {"a": torn}, now=NOW)
    assert [head.version for _, head in repaired.write] == [10]
    assert plan([put("zero", 4, "topic/0", 2)], {"a": torn}, now=NOW).stale
    assert plan([put("one", 10, "file#1", 1)], {"a": torn}, now=NOW).write
    assert plan([put("one", 9, "file#1", 1)], {"a": torn}, now=NOW).stale


def test_stamps_are_clamped_to_the_present_and_fit_for_centuries() -> None:
    now = 1_700_000_000.5
    assert stamp(1_600_000_000_000, 7, now=now) == (1_600_000_000_000 << NUMBER_BITS) + 7
    assert stamp(1_800_000_000_000, 7, now=now) == (1_700_000_000_500 << NUMBER_BITS) + 7
    assert stamp(-5, now=now) == 0
    assert stamp(1_800_000_000_000, now=now) <= latest(now) < stamp(1_800_000_000_000, now=now + 0.001)
    in_the_year_2200 = 7_289_654_400
    assert latest(in_the_year_2200) + 10**9 < 2**63


@pytest.mark.parametrize("origin", ["file", "file#1", "a#b#c"])
def test_origins_differ_by_their_state_after_the_first_sign(origin: str) -> None:
    assert after(put("one", 5, origin, 9), put("two", 1, origin.split("#")[0] + "#other", 1)).version == 6


def test_what_was_set_aside_is_not_newer_because_it_arrives() -> None:
    late = replace(put("banana", 5, "topic/0#1", 7), late=True)
    assert after(put("apple", 9, "topic/0#2", 1), late).offset == 1, "the topic was made again"
    assert after(put("apple", NOW + 1, "file#1", 1), late).offset == 1, "the head is still to come"
    assert after(put("apple", 9, "topic/0#1", 6), late).offset == 7, "the same sequence: its turn was after"
    assert after(removal(9, "topic/0#1", 8), late).deleted
