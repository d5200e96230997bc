"""A document's vectors: one of every leg's tower for each chunk, and what a tower refuses found among the others."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from threading import Lock
from weakref import WeakValueDictionary

from bartizan_connector.base.errors import Reject, WrongUse
from bartizan_connector.encode.answers import check_answer, trusting
from bartizan_connector.encode.encoder import Encoder
from bartizan_connector.space.vectors import NotFinite, Vector, Vectors
from bartizan_connector.store.checks import MAX_CHUNKS, require_leg
from bartizan_connector.store.collection import Collection
from bartizan_connector.stream.chunks import Cutter, Piece
from bartizan_connector.stream.patience import Waiting
from bartizan_connector.stream.records import Cut, Put

_Place = tuple[str, int]
"""A content's hash, and the number of a chunk of it."""
_PLAIN_TEXT = "a probe"
_NOT_FINITE = "the tower gives NaN or infinity for this text; change the text, or ingest it with another tower"
_Found = tuple[Vector, int, int]
"""A vector, the text's length in tokens, and how many of them are not read."""
_WAY_OUT = "Ingest with the document tower of that space, or into a new collection."


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """One chunk of a content, as it is stored."""

    text: str
    vectors: Mapping[str, Vector] = field(default_factory=dict)
    """By leg."""


@dataclass(frozen=True, slots=True, kw_only=True, weakref_slot=True)
class Encoded:
    """One content as every tower gives it."""

    chunks: tuple[Chunk, ...]
    """In order; one, where it is not cut."""
    truncated: bool
    """Whether a chunk is longer than one of the towers reads, or the title than there is room for it."""
    tokens: int = 0
    """How many the towers would read of it if they read all; of all legs together."""
    cut: int = 0
    """How many of these they do not read."""


class Towers:
    """The document towers of all legs. One call at a time is made to them, from whatever thread; a content that is in
    flight is not encoded again."""

    def __init__(
        self,
        encoders: Mapping[str, Encoder],
        collection: Collection,
        waiting: Waiting,
        cutter: Cutter | None = None,
    ) -> None:
        check_towers(encoders, collection)
        self._encoders = {leg.name: encoders[leg.name] for leg in collection.legs}
        self._waiting = waiting
        self._cutter = cutter or Cutter({}, None)
        self._lock = Lock()
        self._in_flight: WeakValueDictionary[str, Encoded] = WeakValueDictionary()

    @property
    def cut(self) -> Cut | None:
        """How new documents are cut."""
        return self._cutter.cut

    def bare(self, put: Put) -> tuple[Chunk, ...]:
        """Its chunks without vectors: nothing is encoded."""
        return tuple(Chunk(text=piece.text) for piece in self._cutter.pieces([put])[0])

    def encode(self, puts: Sequence[Put], encoded: dict[str, Encoded], refused: dict[str, str]) -> None:
        """Fill in, by hash, what these documents lack: the vectors, or the reason why one of the towers gives none."""
        if all(put.hash in encoded or put.hash in refused for put in puts):
            return
        with self._lock:
            lacking: dict[str, Put] = {}
            for put in puts:
                held = encoded.get(put.hash) or self._in_flight.get(put.hash)
                if held is not None:
                    encoded[put.hash] = held
                elif put.hash not in refused:
                    lacking[put.hash] = put
            pieces = dict(zip(lacking, self._cutter.pieces(list(lacking.values())), strict=True))
            refused |= {hash: _too_many(len(each)) for hash, each in pieces.items() if len(each) > MAX_CHUNKS}
            texts = {(hash, n): piece.encoded for hash, each in pieces.items() for n, piece in enumerate(each)}
            found: dict[str, dict[_Place, _Found]] = {}
            for leg in self._encoders:
                texts = {place: text for place, text in texts.items() if place[0] not in refused}
                found[leg] = self._of_leg(leg, texts, refused)
            for hash, each in pieces.items():
                if hash not in refused:
                    encoded[hash] = self._in_flight[hash] = _joined(hash, each, found)

    def _of_leg(self, leg: str, texts: Mapping[_Place, str], refused: dict[str, str]) -> dict[_Place, _Found]:
        """What the leg's tower gives for each text. It does not know ids: what it rejects is found by halves."""
        if not texts:
            return {}
        places = list(texts)
        try:
            batch = self._vectors(self._encoders[leg], list(texts.values()))
        except Reject as error:
            if len(texts) == 1:
                named = f"leg {leg}: {error.reason}" if len(self._encoders) > 1 else error.reason
                refused[places[0][0]] = named
                return {}
            half = len(places) // 2
            first, second = ({place: texts[place] for place in part} for part in (places[:half], places[half:]))
            return self._of_leg(leg, first, refused) | self._of_leg(leg, second, refused)
        most = self._encoders[leg].spec.role("document").max_tokens
        cut = [max(1, n - most) if truncated else 0 for n, truncated in zip(batch.tokens, batch.truncated, strict=True)]
        return dict(zip(places, zip(batch, batch.tokens, cut, strict=True), strict=True))

    def _vectors(self, encoder: Encoder, texts: Sequence[str]) -> Vectors:
        """What the tower gives. Where it is not finite the texts are to blame, unless a plain text fares no better."""
        try:
            batch = self._waiting(lambda: encoder.encode(texts, "document"))
        except NotFinite as error:
            with trusting(encoder.spec):
                self._waiting(lambda: encoder.encode([_PLAIN_TEXT], "document"))
            raise Reject((), _NOT_FINITE) from error
        return check_answer(batch, encoder.spec, len(texts))


def _joined(hash: str, pieces: Sequence[Piece], found: Mapping[str, Mapping[_Place, _Found]]) -> Encoded:
    each = [{leg: found[leg][hash, n] for leg in found} for n in range(len(pieces))]
    chunks = tuple(
        Chunk(text=piece.text, vectors={leg: vector for leg, (vector, _, _) in legs.items()})
        for piece, legs in zip(pieces, each, strict=True)
    )
    read = [of_leg for legs in each for of_leg in legs.values()]
    cut = sum(unread for _, _, unread in read)
    truncated = cut > 0 or any(piece.shortened for piece in pieces)
    return Encoded(chunks=chunks, truncated=truncated, tokens=sum(tokens for _, tokens, _ in read), cut=cut)


def _too_many(chunks: int) -> str:
    return (
        f"the document comes to {chunks:,} chunks, and at most {MAX_CHUNKS:,} are stored of one; raise [chunks] "
        "tokens, or split the document"
    )


def check_towers(encoders: Mapping[str, Encoder], collection: Collection) -> None:
    """Refuse towers that are missing, too many, of another space or kind, or without the role."""
    legs = [leg.name for leg in collection.legs]
    if missing := [leg for leg in legs if leg not in encoders]:
        raise WrongUse(
            f"no tower fills {', '.join(missing)} of collection '{collection.name}', which has the legs "
            f"{', '.join(legs)}; give a document tower for each leg"
        )
    if extra := [leg for leg in encoders if leg not in legs]:
        raise WrongUse(
            f"a tower is given for {', '.join(extra)}, but collection '{collection.name}' has the legs "
            f"{', '.join(legs)}; leave it out, or index into a new collection that has such a leg"
        )
    for leg in legs:
        encoders[leg].spec.role("document")
        require_leg(collection, leg, encoders[leg].spec, "cannot fill", way_out=_WAY_OUT)
