"""Cutting: a text that is longer than the document towers read becomes chunks that lie end to end.

The chunks' own texts, joined, are the text to the last character, so what is stored loses nothing and needs no places
beside it. What a tower reads of a chunk is the title, what the chunk overlaps with, and the chunk; it is never longer
than any of the towers reads.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from bartizan_connector.base.errors import WrongUse
from bartizan_connector.config import Config
from bartizan_connector.config.settings import ChunkSettings
from bartizan_connector.config.towers import checked_pair
from bartizan_connector.space.spec import TowerSpec
from bartizan_connector.store.collection import MAX_STRING_BYTES
from bartizan_connector.stream.records import Boundary, Cut, Put, text_of
from bartizan_connector.stream.sentences import sentence_starts, whole

if TYPE_CHECKING:
    from bartizan_connector.space.tokens import Tokens

Spans = Sequence[tuple[int, int]]


class Reading(Protocol):
    """How one document tower reads texts."""

    @property
    def room(self) -> int:
        """The most tokens of a text that it reads."""
        ...

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """The tokens of each text."""
        ...

    def spans(self, text: str) -> Spans:
        """From which character to which each token reaches, in order."""
        ...


@dataclass(frozen=True, slots=True)
class Piece:
    """One chunk."""

    text: str
    """Its own, which is stored."""
    encoded: str
    """What the document towers read."""
    shortened: bool = False
    """Whether only the beginning of the title is in it."""


class Cutter:
    """Cuts documents, by the tokens of the tower that reads least. Safe to share between threads."""

    def __init__(self, towers: Mapping[str, Reading], settings: ChunkSettings | None) -> None:
        """`towers`: leg → how its document tower reads; `settings`: how new documents are cut, None: they are not."""
        self._towers = towers
        self._settings = settings

    @classmethod
    def of(cls, config: Config) -> "Cutter":
        """What `[chunks]` says, by the tokenizers of the configured document towers, which are read when needed."""
        towers = {leg: TowerReading(config.spaces[leg].tower("document"), config, leg) for leg in config.spaces}
        cutter = cls(towers, config.chunks)
        _ = cutter.cut  # settings that do not fit the towers are refused at once
        return cutter

    @cached_property
    def cut(self) -> Cut | None:
        """How new documents are cut."""
        settings = self._settings
        if settings is None:
            return None
        leg, room = self._narrowest
        tokens = room if settings.tokens is None else settings.tokens
        if tokens > room:
            raise WrongUse(
                f"[chunks] tokens = {tokens}, but the document tower of leg '{leg}' reads {room} tokens of a text; "
                f"give at most {room}, or leave it out"
            )
        if settings.overlap > tokens // 2:
            raise WrongUse(
                f"[chunks] overlap = {settings.overlap} is more than half of the {tokens} tokens of a chunk; give at "
                f"most {tokens // 2}"
            )
        return Cut(tokens, settings.overlap, settings.at)

    def pieces(self, puts: Sequence[Put]) -> list[tuple[Piece, ...]]:
        """The chunks of each document, in order; one that is not cut, or fits, is its only one."""
        fitting = self._fitting([put for put in puts if put.cut is not None])
        return [
            (Piece(put.text, put.encoded),) if put.cut is None or put.hash in fitting else self._pieces(put, put.cut)
            for put in puts
        ]

    @cached_property
    def _narrowest(self) -> tuple[str, int]:
        return min(((leg, tower.room) for leg, tower in self._towers.items()), key=lambda each: (each[1], each[0]))

    def _fitting(self, puts: Sequence[Put]) -> set[str]:
        """The hashes of those that need no cut."""
        short = [put for put in puts if len(put.text.encode()) <= MAX_STRING_BYTES]
        texts = [put.encoded for put in short]
        over = self._over(texts, [put.cut for put in short])
        return {put.hash for put, tokens in zip(short, over, strict=True) if not tokens}

    def _over(self, texts: Sequence[str], cuts: Sequence[Cut | None]) -> list[int]:
        """By how many tokens each text is longer than its cut allows, or than a tower reads; 0: it fits."""
        over = [0] * len(texts)
        for leg, tower in self._towers.items() if texts else ():
            cutting, room = leg == self._narrowest[0], tower.room
            for number, (length, cut) in enumerate(zip(tower.lengths(texts), cuts, strict=True)):
                most = min(room, cut.tokens) if cutting and cut is not None else room
                over[number] = max(over[number], length - most)
        return over

    def _pieces(self, put: Put, cut: Cut) -> tuple[Piece, ...]:
        """Tokens of a whole text are not quite those of its parts, and other towers count otherwise; so what comes out
        too long is cut shorter."""
        tower = self._towers[self._narrowest[0]]
        spans = tower.spans(put.text)
        limit = min(cut.tokens, tower.room)
        while True:
            found = _cut(put, replace(cut, tokens=limit), tower, spans)
            over = max(self._over([piece.encoded for piece in found], [cut] * len(found)))
            if limit == 1 or not over:
                return found
            limit -= max(1, min(over, limit // 8))


class TowerReading:
    """How the tower in a folder reads documents; its tokenizer is read when it is first needed."""

    def __init__(self, folder: Path, config: Config, leg: str) -> None:
        self._folder = folder
        self._config = config
        self._leg = leg

    @property
    def room(self) -> int:
        return self._tokens.room("document")

    def lengths(self, texts: Sequence[str]) -> list[int]:
        return self._tokens.lengths(texts, "document")

    def spans(self, text: str) -> Spans:
        return self._tokens.spans(text)

    @cached_property
    def _spec(self) -> TowerSpec:
        return checked_pair(self._config, self._leg).document

    @cached_property
    def _tokens(self) -> "Tokens":
        from bartizan_connector.space.tokens import Tokens

        self._spec.role("document")
        return Tokens.read(self._folder, self._spec)


def _cut(put: Put, cut: Cut, tower: Reading, spans: Spans) -> tuple[Piece, ...]:
    """The title takes at most half of a chunk, and what a chunk overlaps with at most half of the rest."""
    text, title = put.text, _shortened(put.title, cut.tokens // 2 if put.text.strip() else cut.tokens, tower)
    room = max(1, cut.tokens - (tower.lengths([title])[0] if title else 0))
    overlap = min(cut.overlap, room // 2)
    starts = list(accumulate((start for start, _ in spans), max))
    sentences = sentence_starts(text) if cut.at == "sentence" else []
    pieces: list[Piece] = []
    begin = 0
    while begin < len(text) or not pieces:
        context = _context(begin, overlap, starts, sentences) if begin else begin
        read_before = bisect_left(starts, begin) - bisect_left(starts, context)
        end = _end(text, begin, max(1, room - read_before), starts, sentences, cut.at)
        own = text[begin:end]
        pieces.append(Piece(own, text_of(title, text[context:end]), len(title) < len(put.title)))
        begin = end
    return tuple(pieces)


def _end(text: str, begin: int, room: int, starts: Sequence[int], sentences: Sequence[int], at: Boundary) -> int:
    """Where the chunk that begins there ends: as late as there is room for its tokens, and in the store for its bytes;
    at the end of a sentence, else between words, else between tokens."""
    after = bisect_left(starts, begin) + room
    limit = starts[after] if after < len(starts) else len(text)
    if limit <= begin:  # several tokens of one character
        limit = next((start for start in starts[after:] if start > begin), len(text))
    if 4 * (limit - begin) > MAX_STRING_BYTES:
        storable = text[begin : begin + MAX_STRING_BYTES].encode()[:MAX_STRING_BYTES].decode(errors="ignore")
        limit = min(limit, begin + len(storable))
    if limit >= len(text):
        return len(text)
    if at == "sentence":
        sentence = bisect_right(sentences, limit) - 1
        if sentence >= 0 and sentences[sentence] > begin and text[begin : sentences[sentence]].strip():
            return sentences[sentence]
        for word in range(limit, (begin + limit) // 2, -1):
            if text[word - 1].isspace() and text[begin:word].strip():
                return word
    return whole(text, limit, begin)


def _context(begin: int, overlap: int, starts: Sequence[int], sentences: Sequence[int]) -> int:
    """Where begins what the chunk overlaps with: at a sentence, where one begins in it."""
    token = bisect_left(starts, begin)
    least = starts[max(0, token - overlap)] if overlap and token else begin
    at = bisect_left(sentences, least)
    return sentences[at] if at < len(sentences) and sentences[at] < begin else min(least, begin)


def _shortened(title: str, most: int, tower: Reading) -> str:
    """The beginning of the title, where it is longer than so many tokens."""
    spans = tower.spans(title) if title else ()
    return title[: spans[most][0]].rstrip() if len(spans) > most else title
