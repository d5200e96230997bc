"""A collection gets new towers while it is written and searched, and the old ones back: only the space tells."""

import threading
import time
from collections import Counter
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from bartizan_connector.base.errors import Stop, WrongUse
from bartizan_connector.config.towers import collection_of
from bartizan_connector.documents.documents import Documents
from bartizan_connector.documents.reembed import Towers
from bartizan_connector.store.backend import Store
from bartizan_connector.store.settings import BackendSettings
from tests.connector.stream.reembed.cycle import filled, memory, run, swap, wait
from tests.connector.stream.reembed.project import WORDS, Pair, pair, text
from tests.connector.stream.reembed.traffic import Readers, Writer


def roll_back(both: Pair, *, settle: float = 5, **options: object) -> object:
    with Towers.opened(both.new, both.old, settle=settle) as towers, towers.encoders(both.old) as encoders:
        return towers.reembedding.rollback(encoders, **options)  # type: ignore[arg-type]


def heads(store: Store) -> dict[str, tuple[object, ...]]:
    return {
        head.id: (head.version, head.hash, head.deleted, head.origin, head.offset)
        for page in store.audit().heads()  # type: ignore[attr-defined]
        for head in page
    }


def both_hold(both: Pair) -> dict[str, str]:
    """Id → text, once both collections are found to hold the same, heads and all."""
    with closing(both.old.backend.open()) as backend:
        found = {}
        for physical, contract in backend.collections().items():
            with closing(backend.open(contract, create=False, name=physical)) as store:
                texts = {document.id: str(document.rows[0].fields["text"]) for document in store.scan()}
                found[physical] = (texts, heads(store))
        first, second = found.values()
        assert first == second
        return first[0]


@pytest.mark.packaging
def test_a_collection_changes_towers_and_back_under_writes_and_searches(tmp_path: Path) -> None:
    both = filled(tmp_path, backend=BackendSettings(uri=str(tmp_path / "index.bartizan")))
    readers = Readers(both)
    writer = Writer(both.old)
    told = threading.Event()
    following = threading.Thread(target=run, args=(both,), kwargs={"follow": True, "every": 0.05, "stop": told})
    with readers:
        with writer:
            following.start()
            readers.wait_for("old")
            time.sleep(0.3)
            outcome = swap(both)
            readers.wait_for("new")
            time.sleep(0.2)  # the worker still writes into what it has open
        told.set()
        following.join()
        run(both)
        assert outcome.place.state == "swapped"  # type: ignore[attr-defined]
        assert both_hold(both) == writer.model
        second = Writer(both.new, writer)
        with second:
            time.sleep(0.2)
        back = roll_back(both)
        assert back.difference.lag == 0  # type: ignore[attr-defined]
        readers.wait_for("old")
    assert readers.failures == []
    assert set(readers.spaces) == set(both.spaces.values())
    assert both_hold(both) == second.model
    assert readers.asked > 50


def test_everything_is_carried_over_once(tmp_path: Path) -> None:
    both = filled(tmp_path)
    outcome = run(both)
    assert outcome.report.written == 39  # type: ignore[attr-defined]
    assert Counter(both.new_tower.count.texts) == Counter(text(n) for n in range(40) if n != 3)
    assert len(both_hold(both)) == 39
    assert run(both).report.read == 0  # type: ignore[attr-defined]
    with Documents(both.old) as documents:
        documents.put([{"_id": "d5", "text": "changed"}, {"_id": "d3", "text": "back"}])
        documents.delete(["d6"])
    both.new_tower.count.texts.clear()
    run(both)
    assert sorted(both.new_tower.count.texts) == ["back", "changed"]
    assert both_hold(both)["d3"] == "back"


def test_a_replay_cannot_bring_back_what_was_deleted_before_the_run(tmp_path: Path) -> None:
    both = pair(tmp_path, memory())
    with Documents(both.old) as documents:
        documents.put([{"_id": "a", "text": "one", "_version": 5}, {"_id": "b", "text": "two", "_version": 5}])
        documents.put([{"_id": "a", "_deleted": True, "_version": 6}])
    run(both)
    swap(both)
    with Documents(both.new) as documents:
        outcome = documents.put([{"_id": "a", "text": "one", "_version": 5}])
        assert (outcome.stale, outcome.written) == (1, 0)
        assert documents.put([{"_id": "b", "text": "two", "_version": 5}]).unchanged == 1


def test_the_former_one_is_kept_up_by_the_same_command_with_the_roles_changed(tmp_path: Path) -> None:
    both = filled(tmp_path, 12)
    run(both)
    swap(both)
    with Documents(both.new) as documents:
        documents.put([{"_id": "later", "text": WORDS[0]}])
    back = Pair(both.new, both.old, both.towers)
    assert run(back).report.written == 1  # type: ignore[attr-defined]
    assert both_hold(both)["later"] == WORDS[0]
    assert swap(back).place.state == "swapped"  # type: ignore[attr-defined]
    with Documents(both.old) as documents:
        assert documents.count() == 12
    assert roll_back(back).place.serving != roll_forward(back)  # type: ignore[attr-defined]


def roll_forward(back: Pair) -> str:
    with Towers.opened(back.new) as towers:
        place = towers.reembedding.look()
        assert place.state == "filling"
        assert place.next is not None
        return place.next


def test_a_run_that_is_told_to_stop_does_not_look_at_every_document_first(tmp_path: Path) -> None:
    both, told = filled(tmp_path), threading.Event()
    assert run(both).difference is not None  # type: ignore[attr-defined]
    told.set()
    assert run(both, stop=told).difference is None  # type: ignore[attr-defined]


def test_a_rollback_names_who_writes_the_former_collection_and_follows_when_that_has_ended(tmp_path: Path) -> None:
    both = filled(tmp_path, 6, backend=BackendSettings(uri=str(tmp_path / "index.bartizan")))
    run(both)
    swap(both)
    with Documents(both.new) as documents:
        documents.put([{"_id": "late", "text": "late"}])
    other = both.old.backend.open()
    with Towers.opened(both.new) as towers:
        former = towers.reembedding.look().former
    assert former is not None
    other.open(collection_of(both.old), create=False, name=former).claim()
    with Towers.opened(both.new, settle=0.1) as towers, pytest.raises(Stop, match=r"late.*is being written by process"):
        towers.reembedding.rollback({"dense": both.old_tower})
    told = threading.Event()
    options = {"at_once": True, "follow": True, "every": 0.05, "settle": 0.1, "stop": told}
    going = threading.Thread(target=roll_back, args=(both,), kwargs=options)
    going.start()
    with Documents(both.old) as documents:
        wait(lambda: documents.backend.aliases()["docs"] == former)
        assert documents.get(["late"]) == {}
        other.close()
        wait(lambda: "late" in documents.get(["late"]))
    told.set()
    going.join()


def test_a_third_pair_of_towers_waits_until_the_former_collection_is_dropped(tmp_path: Path) -> None:
    both = filled(tmp_path, 6)
    run(both)
    swap(both)
    third = pair(tmp_path / "third", both.old.backend)
    tower = type(third.new_tower)(4, seed=7)
    tower.spec.write(third.new.spaces["dense"].document_tower)
    encoders = {name: each.model_copy(update={"tower": tower}) for name, each in third.new.encoders.items()}
    new = third.new.model_copy(update={"encoders": encoders})
    later = Pair(both.new, new, both.towers | {tower.spec.space_id: tower})
    with pytest.raises(WrongUse, match="kept from an earlier re-embedding"):
        run(later)
    with Towers.opened(both.new) as towers:
        dropped = towers.reembedding.drop()
        with pytest.raises(WrongUse, match="the only one"):
            towers.reembedding.drop()
    run(later)
    assert swap(later).place.state == "swapped"  # type: ignore[attr-defined]
    with closing(both.new.backend.open()) as backend:
        assert dropped not in backend.collections()
        assert len(backend.collections()) == 2
        assert backend.aliases()["docs"] in backend.collections()


def test_only_the_one_that_is_not_in_use_is_dropped(tmp_path: Path) -> None:
    both = filled(tmp_path, 6)
    run(both)
    with closing(both.old.backend.open()) as backend:
        serving = backend.aliases()["docs"]
    with Towers.opened(both.new) as towers:
        assert towers.reembedding.drop() != serving
    with Documents(both.old) as documents:
        assert documents.count() == 5
    run(both)
    swap(both)
    with Documents(both.new) as documents:
        documents.put([{"_id": "new", "text": "new"}])
    with closing(both.old.backend.open()) as backend:
        store = backend.open(collection_of(both.old), create=False, name=serving)
        head = store.heads(["d1"])["d1"]
        store.delete([type(head)(id="d1", version=head.version + 1)])
        store.close()
    for config in (both.new, both.old):
        with Towers.opened(config, settle=0.3) as towers, pytest.raises(Stop, match="holds 1 changes"):
            towers.reembedding.drop()
    with Towers.opened(both.new, settle=0.3) as towers:
        assert towers.reembedding.drop(force=True) == serving


def test_what_a_late_worker_writes_after_a_rollback_is_not_dropped(tmp_path: Path) -> None:
    both = filled(tmp_path, 6)
    run(both)
    swap(both)
    with Documents(both.new) as worker:
        assert worker.count() == 5
        roll_back(both)
        worker.put([{"_id": "late", "text": "late"}])
    with Towers.opened(both.new, settle=0.3) as towers, pytest.raises(Stop, match=r"holds 1 changes .*\(late\)"):
        towers.reembedding.drop()


def test_a_rollback_does_not_go_back_to_other_content_of_the_same_version(tmp_path: Path) -> None:
    both = filled(tmp_path, 6)
    run(both)
    swap(both)
    with Towers.opened(both.new) as towers:
        former = towers.reembedding.look().former
    assert former is not None
    with closing(both.old.backend.open()) as backend:
        store = backend.open(collection_of(both.old), create=False, name=former)
        store.touch([replace(store.heads(["d1"])["d1"], hash="of another text")])
        store.close()
    with pytest.raises(Stop, match=r"lacks 1 changes \(d1\).*other content at the same version"):
        roll_back(both, settle=0.3)
    roll_back(both, settle=0.3, at_once=True)
