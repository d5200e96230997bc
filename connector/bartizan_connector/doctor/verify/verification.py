"""The whole look: contract, name, every head with its rows and words, every row and every word without a head, and what
the last writer left. In bounded memory, beside readers; what a writer is changing just now is looked at twice."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, closing
from threading import Event

from bartizan_connector.base.errors import BartizanError, Retry, SpaceMismatch, Stop, WrongUse
from bartizan_connector.config import Config
from bartizan_connector.config.towers import collection_of, open_encoders
from bartizan_connector.doctor.verify.damage import Tally
from bartizan_connector.doctor.verify.documents import Found, examined
from bartizan_connector.doctor.verify.mending import Mending
from bartizan_connector.doctor.verify.vectors import Comparison
from bartizan_connector.search.configured import open_words
from bartizan_connector.store.audit import Audit, Audited, Standing, Stray
from bartizan_connector.store.backend import Backend, Store
from bartizan_connector.store.collection import Collection
from bartizan_connector.stream.chunks import Cutter
from bartizan_connector.stream.patience import Patience, Waiting
from bartizan_connector.stream.towers import Towers
from bartizan_connector.stream.words import Words, agree, differing_from

SAMPLE = 100
"""Documents whose vectors are encoded again, unless more are asked for."""


def verify(
    config: Config,
    *,
    repair: bool = False,
    vectors: int | None = SAMPLE,
    on_page: Callable[[int], None] = lambda done: None,
) -> Tally:
    """What stands wrong in the configured collection; `repair`: mend what can be. `vectors`: of how many documents they
    are encoded again; None: of all. A collection that is not there is WrongUse; one that cannot be reached a Retry."""
    tally = Tally()
    with ExitStack() as closed:
        wanted = collection_of(config)
        backend = closed.enter_context(closing(config.backend.open()))
        _name(backend, wanted, tally, repair=repair)
        try:
            store = closed.enter_context(closing(backend.open(wanted, create=False)))
        except (Retry, WrongUse):
            raise
        except Stop as error:  # SpaceMismatch is one
            tally.add("contract", str(error), exit_code=3 if isinstance(error, SpaceMismatch) else 1)
            return tally
        words = _words(config, tally)
        if words is not None:
            closed.callback(words.close)  # type: ignore[attr-defined]
        look = Verification(config, store, words, tally, repair=repair)
        closed.callback(look.close)
        look.run(vectors, on_page)
    return tally


def _words(config: Config, tally: Tally) -> Words | None:
    try:
        return open_words(config)
    except Stop as error:
        tally.add("foreign words", str(error))
        return None


def _name(backend: Backend, wanted: Collection, tally: Tally, *, repair: bool) -> None:
    """Whether the name stands for what was made under it, while that is still there and of the wanted spaces."""
    try:
        physical = backend.aliases().get(wanted.name)
        contracts = backend.collections()
    except Retry:
        raise
    except Stop as error:  # a contract that cannot be read
        tally.add("contract", str(error))
        return
    stands_for = contracts.get(physical or "")
    legs = {(leg.name, leg.space_id) for leg in wanted.legs}
    own = [
        name
        for name, each in contracts.items()
        if each.name == wanted.name and {(leg.name, leg.space_id) for leg in each.legs} == legs and name != physical
    ]
    if not own or (stands_for is not None and stands_for.name == wanted.name):
        return
    told = f"'{wanted.name}' stands for {physical or 'nothing'}, and {own[0]} was made under it"
    tally.add("name", told)
    if repair and len(own) == 1:
        backend.point(wanted.name, own[0])
        tally.mended["name"] += 1


class Verification:
    """One opened collection."""

    def __init__(self, config: Config, store: Store, words: Words | None, tally: Tally, *, repair: bool) -> None:
        if not isinstance(store, Audited):
            raise WrongUse(f"the store at {config.backend.uri} offers no way to verify it")
        self._config = config
        self._store = store
        self._words = words
        self._tally = tally
        self._repair = repair
        self._waiting = Waiting(Patience(), Event())
        self._audit: Audit = store.audit()
        self._closed = ExitStack()
        self._comparison: Comparison | None = None
        self._mending = Mending(store, self._audit, words, self._towers, self._waiting)

    def run(self, vectors: int | None, on_page: Callable[[int], None]) -> None:
        self._left_by_the_last_writer()  # before we are the last writer
        if self._repair:
            self._store.claim()
        self._unsettled()
        stride = 1 if vectors is None else max(1, -(-self._audit.now().live // vectors)) if vectors else 0
        for page in self._audit.standings():
            self._page(page, stride)
            on_page(len(page))
        for strays in self._audit.strays():
            self._strays(strays)
        if self._words is not None:
            for held in self._words.pages():
                self._worded(differing_from(self._store, held, self._waiting))

    def close(self) -> None:
        self._closed.close()

    def _towers(self) -> Comparison:
        if self._comparison is None:
            encoders = open_encoders(self._config, "document")
            for encoder in encoders.values():
                self._closed.enter_context(closing(encoder))
            self._comparison = Comparison(
                Towers(encoders, self._store.collection, self._waiting, Cutter.of(self._config))
            )
        return self._comparison

    def _unsettled(self) -> None:
        """Ids at which a run was cut off between rows and words."""
        words, tally = self._words, self._tally
        if words is None:
            return
        filled = words.filled_from()
        if filled not in (None, self._store.physical_name):
            tally.add("foreign words", f"they were filled from {filled}, and this is {self._store.physical_name}")
        ids = words.announced()
        if ids:
            tally.add("words behind", f"a run was cut off at {', '.join(ids[:5])}", len(ids))
        if self._repair and (ids or tally.found["foreign words"]):
            agree(words, self._store, self._waiting)
            tally.mended["words behind"] += len(ids)
            tally.mended["foreign words"] = tally.found["foreign words"]

    def _left_by_the_last_writer(self) -> None:
        left = self._audit.balance()
        if left is None:
            return
        missing = left.deleted - self._audit.now().deleted
        if missing > 0:
            self._tally.add("missing tombstone", f"{missing:,} of {left.deleted:,}", missing)

    def _page(self, page: Sequence[Standing], stride: int) -> None:
        tally = self._tally
        before = tally.documents
        tally.documents += len(page)
        tally.rows += sum(len(standing.rows) for standing in page)
        suspects = [each.standing.id for each in self._examined(page) if each.kinds]
        found = [each for each in self._examined(self._audit.again(suspects)) if each.kinds] if suspects else []
        sound = [standing for standing in page if standing.id not in set(suspects) and standing.rows]
        chosen = [each for n, each in enumerate(sound, before) if stride and n % stride == 0 and each.head]
        found += self._foreign(chosen)
        for each in found:
            for kind, details in each.kinds.items():
                tally.add(kind, f"{each.standing.id}: {details}")
        if self._repair and found:
            self._mending.documents(found, tally)

    def _examined(self, page: Iterable[Standing]) -> list[Found]:
        standings, words = list(page), self._words
        held = words.hashes([standing.id for standing in standings]) if words is not None else {}
        collection = self._store.collection
        return [examined(each, collection, held.get(each.id), worded=words is not None) for each in standings]

    def _foreign(self, chosen: Sequence[Standing]) -> list[Found]:
        if not chosen:
            return []
        try:
            foreign = self._towers().foreign(chosen)
        except BartizanError as error:
            note = f"vectors were not compared: {error}"
            if note not in self._tally.notes:
                self._tally.notes.append(note)
            return []
        self._tally.compared += len(chosen)
        return [
            Found(standing=each, kinds={"foreign vector": foreign[each.id]}) for each in chosen if each.id in foreign
        ]

    def _strays(self, strays: Sequence[Stray]) -> None:
        """A document that was written since its head was read is none."""
        heads = {each.id: each for each in self._audit.again(list({stray.id for stray in strays}))}
        still = [each for each in strays if not _is_accounted_for(each, heads.get(each.id))]
        for stray in still:
            self._tally.add("extra row", f"{stray.id}, chunk {stray.chunk}")
        if self._repair and still:
            self._mending.strays(still, self._tally)

    def _worded(self, differing: Sequence[str]) -> None:
        """Ids of which the words hold something, and the store nothing; the others were found by their heads."""
        known = {each.id for each in self._audit.again(differing)} if differing else set()
        extra = [id for id in differing if id not in known]
        for id in extra:
            self._tally.add("words behind", f"{id}: they hold a document that is not stored")
        if self._repair and extra:
            self._mending.words(extra, self._tally)


def _is_accounted_for(stray: Stray, standing: Standing | None) -> bool:
    return standing is not None and any(row.chunk == stray.chunk for row in standing.rows)
