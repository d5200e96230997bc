"""BackendSuite's tests of names: opening and its contract, several openers, aliases, drops."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from bartizan_connector.base.errors import SpaceMismatch, Stop, WrongUse
from bartizan_connector.store.backend import Backend, Store
from bartizan_connector.store.collection import Collection, FieldSpec, Head
from bartizan_connector.testing.backend_base import OnBackend
from bartizan_connector.testing.rows import COLLECTION, DENSE, FIELDS, SPACE, found, named, queries, row


class Naming(OnBackend):
    """Open, collections, aliases, point, drop, close."""

    # ---- opening and the contract

    def test_it_starts_empty(self, store: Store) -> None:
        """When this fails, `make` gives a back-end that still holds another test's rows."""
        assert self.everything(store) == set()
        assert store.heads(["a"]) == {}
        assert store.count() == 0

    def test_opening_twice_gives_the_same_collection(self, backend: Backend, store: Store) -> None:
        store.upsert([row("a", [1, 0, 0, 0])])
        for id, again in (("b", backend.open(COLLECTION)), ("c", backend.open(COLLECTION, create=False))):
            assert again.physical_name == store.physical_name
            assert again.collection == store.collection == COLLECTION
            again.upsert([row(id, [1, 0, 0, 0])])
            assert self.everything(again) == self.everything(store)
            assert again.heads([id]) == store.heads([id]) != {}
        assert self.everything(store) == {("a", 0), ("b", 0), ("c", 0)}

    def test_another_space_is_refused_and_nothing_changes(self, backend: Backend, store: Store) -> None:
        store.upsert([row("a", [1, 0, 0, 0])])
        with pytest.raises(SpaceMismatch, match=r"another(.|\n)*collection name") as raised:
            backend.open(named("suite", space_id="another"))
        assert (raised.value.expected, raised.value.came) == (SPACE, "another")
        assert self.everything(store) == {("a", 0)}

    @pytest.mark.parametrize(
        "change",
        [
            {"legs": (DENSE.model_copy(update={"dim": 5}),)},
            {"legs": (DENSE.model_copy(update={"name": "other"}),)},
            {"legs": (DENSE, DENSE.model_copy(update={"name": "second"}))},
            {"fields": FIELDS[:-1]},
            {"fields": (*FIELDS, FieldSpec(name="more", type="int", default=1))},
            {"fields": (*FIELDS[:-1], FieldSpec(name="fresh", type="int", default=1))},
        ],
    )
    def test_another_leg_or_field_is_refused(self, backend: Backend, store: Store, change: dict[str, object]) -> None:
        with pytest.raises(Stop, match="suite"):
            backend.open(COLLECTION.model_copy(update=change))
        assert backend.open(COLLECTION).collection == store.collection

    def test_a_missing_collection_is_not_made_for_a_reader(self, backend: Backend, store: Store) -> None:
        for _ in range(2):
            with pytest.raises(WrongUse, match="suite_absent"):
                backend.open(named("suite_absent"), create=False)
        assert "suite_absent" not in backend.aliases()

    def test_of_several_who_create_at_once_one_does_and_all_open_it(self, backend: Backend) -> None:
        barrier = Barrier(3)

        def first(writer: int) -> Store:
            barrier.wait()
            store = backend.open(named("suite_raced"))
            store.upsert([row(f"w{writer}", [1, 0, 0, 0])])
            return store

        with ThreadPoolExecutor(3) as pool:
            stores = list(pool.map(first, range(3)))
        assert len({store.physical_name for store in stores}) == 1
        assert self.everything(stores[0]) == {("w0", 0), ("w1", 0), ("w2", 0)}
        assert _of(backend, "suite_raced") == [stores[0].physical_name]

    def test_collections_of_one_back_end_are_apart(self, backend: Backend, store: Store) -> None:
        other = backend.open(named("suite_other", space_id="another"))
        assert other.physical_name != store.physical_name
        store.upsert([row("a", [1, 0, 0, 0], hash="here")])
        other.delete([Head(id="a", version=9)])
        assert store.heads(["a"]) == {"a": Head(id="a", version=1, hash="here")}
        assert other.heads(["a"]) == {"a": Head(id="a", version=9, deleted=True)}
        assert (store.count(), other.count()) == (1, 0)
        with pytest.raises(SpaceMismatch, match="suite_other"):
            other.search("dense", queries([1, 0, 0, 0]), 1)

    # ---- names

    def test_a_name_stands_for_a_physical_one_that_carries_the_contract(self, backend: Backend, store: Store) -> None:
        assert backend.aliases()["suite"] == store.physical_name
        assert backend.collections()[store.physical_name] == COLLECTION

    def test_a_name_can_be_given_to_another_collection(self, backend: Backend, store: Store) -> None:
        following = backend.open(named("suite_following"))
        following.upsert([row("new", [1, 0, 0, 0])])
        store.upsert([row("old", [1, 0, 0, 0])])
        for _ in range(2):
            backend.point("suite", following.physical_name)
            backend.point("suite_live", following.physical_name)
            names = backend.aliases()
            assert names["suite"] == names["suite_live"] == names["suite_following"] == following.physical_name
        for name in ("suite", "suite_live"):
            opened = backend.open(named(name), create=False)
            assert opened.physical_name == following.physical_name
            assert self.everything(opened) == {("new", 0)}
        store.upsert([row("older", [1, 0, 0, 0])])
        assert self.everything(store) == {("old", 0), ("older", 0)}
        assert self.everything(following) == {("new", 0)}
        backend.point("suite", store.physical_name)
        assert self.everything(backend.open(COLLECTION)) == {("old", 0), ("older", 0)}

    def test_a_collection_can_be_made_before_it_gets_its_name(self, backend: Backend, store: Store) -> None:
        successor = named("suite", space_id="another")
        with pytest.raises(WrongUse, match="suite_next"):
            backend.open(successor, create=False, name="suite_next")
        made = backend.open(successor, name="suite_next")
        assert made.collection == successor
        assert made.physical_name != store.physical_name
        assert backend.aliases()["suite"] == store.physical_name
        assert backend.aliases()["suite_next"] == made.physical_name
        for name in ("suite_next", made.physical_name):
            assert backend.open(successor, create=False, name=name).physical_name == made.physical_name
            with pytest.raises(SpaceMismatch, match="another"):
                backend.open(COLLECTION, create=False, name=name)
        backend.point("suite", made.physical_name)
        assert backend.open(successor, create=False).physical_name == made.physical_name
        assert backend.open(COLLECTION, create=False, name=store.physical_name).physical_name == store.physical_name
        backend.drop(store.physical_name)
        assert backend.aliases()["suite"] == backend.aliases()["suite_next"] == made.physical_name

    def test_a_name_cannot_stand_for_nothing(self, backend: Backend, store: Store) -> None:
        for name in ("suite", "suite_live"):
            with pytest.raises(WrongUse, match="suite_nowhere"):
                backend.point(name, "suite_nowhere")
        assert backend.aliases()["suite"] == store.physical_name
        assert "suite_live" not in backend.aliases()

    # ---- dropped and replaced

    def test_what_is_dropped_is_gone_with_all_its_names(self, backend: Backend, store: Store) -> None:
        store.upsert([row("a", [1, 0, 0, 0])])
        backend.point("suite_live", store.physical_name)
        backend.drop("suite")
        assert _of(backend, "suite") == []
        assert not {"suite", "suite_live"} & set(backend.aliases())
        for name in ("suite", "suite_live"):
            with pytest.raises(WrongUse, match=name):
                backend.open(named(name), create=False)
            with pytest.raises(WrongUse, match=name):
                backend.drop(name)
        fresh = backend.open(COLLECTION)
        assert fresh.physical_name != store.physical_name
        assert fresh.heads(["a"]) == {}
        assert self.everything(fresh) == set()
        backend.drop(fresh.physical_name)
        assert "suite" not in backend.aliases()

    def test_a_dropped_collection_takes_no_write_and_answers_no_search(self, backend: Backend, store: Store) -> None:
        store.upsert([row("a", [1, 0, 0, 0])])
        backend.drop("suite")
        self.check_it_refuses(store, Stop, "dropped")
        assert _of(backend, "suite") == []

    @pytest.mark.parametrize(
        ("space", "error", "told"), [(SPACE, Stop, "replaced"), ("another", SpaceMismatch, "another")]
    )
    def test_a_replaced_collection_takes_no_write_and_answers_no_search(
        self, backend: Backend, store: Store, space: str, error: type[Stop], told: str
    ) -> None:
        store.upsert([row("a", [1, 0, 0, 0])])
        backend.drop("suite")
        fresh = backend.open(named("suite", space_id=space))
        self.check_it_refuses(store, error, told)
        assert fresh.heads(["a", "b"]) == {}
        assert fresh.count() == 0
        backend.drop("suite")

    def check_it_refuses(self, store: Store, error: type[Stop], told: str) -> None:
        """Whatever would write or search."""
        for call in (
            lambda: store.upsert([row("b", [1, 0, 0, 0])]),
            lambda: store.touch([Head(id="b", version=1)]),
            lambda: store.delete([Head(id="a", version=1)]),
            lambda: store.search("dense", queries([1, 0, 0, 0]), 1),
            lambda: store.heads(["a"]),
            lambda: store.get(["a"]),
            lambda: list(store.scan()),
            lambda: store.count(),
            lambda: store.purge(1),
        ):
            with pytest.raises(error, match=told) as raised:
                call()
            assert type(raised.value) is error

    # ---- closing

    def test_a_closed_store_leaves_the_others_open(self, backend: Backend, store: Store) -> None:
        other = backend.open(COLLECTION)
        store.upsert([row("a", [1, 0, 0, 0])])
        store.close()
        store.close()
        other.upsert([row("b", [1, 0, 0, 0])])
        (hits,) = other.search("dense", queries([1, 0, 0, 0]), 10)
        assert found(hits) == [("a", 0), ("b", 0)]

    def test_closing_twice_is_fine(self, backend: Backend, store: Store) -> None:
        store.upsert([row("a", [1, 0, 0, 0])])
        for _ in range(2):
            backend.close()
            store.close()


def _of(backend: Backend, name: str) -> list[str]:
    """The physical names of the collections that were made under that name."""
    stored: dict[str, Collection] = dict(backend.collections())
    return [physical for physical, collection in stored.items() if collection.name == name]
