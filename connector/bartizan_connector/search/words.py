"""WordIndex: the lexical leg, BM25 over title and text in a Tantivy index on disk.

A query is cut into words by the analyzer that cut the documents, and never parsed: no text can be a syntax error, and
none can reach another field. Filters are evaluated here, on the stored fields, by the same code as everywhere else.
"""

import errno
import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from threading import RLock
from typing import Any

from bartizan_connector.base.claim import claim, owner_of
from bartizan_connector.base.errors import BartizanError, Reject, Retry, Stop, WrongUse, missing_extra
from bartizan_connector.store.collection import MAX_ID_BYTES, Hit, Row, is_of_type
from bartizan_connector.store.filters import Filter, matches

if find_spec("tantivy") is None:
    raise missing_extra("tantivy", "local")

import tantivy
from tantivy import Occur, Query

_ANALYZER = "english_words"
_LONGEST_WORD = 40
_MAX_QUERY_WORDS = 256
"""Different words of one query that are looked up: far more than a question has, few enough to stay fast."""
_WRITER_BYTES = 32_000_000
_GROWTH = 4


class WordIndex:
    """Words of one collection's documents, in a folder of their own. Safe to share between threads.

    A folder of another collection is refused at once. One process writes at a time; others see what was written at
    their next search."""

    def __init__(self, folder: Path, collection: str) -> None:
        self._folder = folder
        self._collection = collection
        self._lock = RLock()
        self._index: tantivy.Index | None = None
        self._writer: tantivy.IndexWriter | None = None
        self._analyzer = _analyzer()
        with self._calling():
            self._is_ours(owner_of(folder))

    def hashes(self, ids: Sequence[str]) -> Mapping[str, str]:
        """The hash of each of these ids that is indexed."""
        index = self._opened(create=False)
        if index is None:
            return {}
        with self._calling():
            index.reload()
            searcher = index.searcher()
            found: dict[str, str] = {}
            for id in ids:
                if is_of_type(id, "string"):
                    query = Query.term_query(index.schema, "id", id)
                    for _, address in searcher.search(query, 1, count=False).hits:
                        found[id] = str(_stored(searcher, address)["hash"])
            return found

    def upsert(self, rows: Sequence[Row]) -> None:
        """Replace each id that occurs by exactly the rows given for it; durable on return."""
        last = {(row.id, row.chunk): row for row in rows}
        self._change(list({row.id: None for row in rows}), list(last.values()))

    def delete(self, ids: Sequence[str]) -> None:
        """Remove these ids; durable on return."""
        self._change(ids, [])

    def search(self, text: str, k: int, filter: Filter | None = None, *, timeout: float | None = None) -> list[Hit]:
        """The k best rows by BM25, ties in order of (id, chunk). A text without any word finds nothing."""
        if k < 1:
            raise WrongUse(f"k = {k}: ask for at least one result")
        deadline = None if timeout is None else time.monotonic() + timeout
        index = self._opened(create=False)
        if index is None:
            raise WrongUse(f"there is no word index in {self._folder}; ingest documents with [backend] lexical set")
        with self._calling():
            query = self._query(index, text)
            index.reload()
            hits = self._ranked(index.searcher(), query, k, filter, deadline)
        return sorted(hits, key=lambda hit: (-hit.score, hit.id, hit.chunk))[:k]

    def close(self) -> None:
        """Let other processes write. Closing twice is fine."""
        with self._lock, self._calling():
            writer, self._writer, self._index = self._writer, None, None
            if writer is not None:
                writer.wait_merging_threads()

    def _query(self, index: tantivy.Index, text: str) -> Query:
        counts = Counter(self._analyzer.analyze(_clean(text))).most_common(_MAX_QUERY_WORDS)
        words = [(Query.term_query(index.schema, "words", word, "freq"), count) for word, count in counts]
        return Query.boolean_query([(Occur.Should, Query.boost_query(query, count)) for query, count in words])

    def _ranked(
        self, searcher: tantivy.Searcher, query: Query, k: int, filter: Filter | None, deadline: float | None
    ) -> list[Hit]:
        """Page after page until k rows pass and the k-th score does not go on beyond the page."""
        hits: list[Hit] = []
        offset, limit = 0, k + 1
        while True:
            page = searcher.search(query, limit, count=False, offset=offset).hits
            for score, address in page:
                hit = _hit(_stored(searcher, address), score)
                if filter is None or self._passes(filter, hit):
                    hits.append(hit)
            if len(page) < limit or (len(hits) >= k and page[-1][0] < hits[k - 1].score):
                return hits
            if deadline is not None and time.monotonic() > deadline:
                raise Retry(f"the word index in {self._folder} had not answered by the deadline", after=0.0)
            offset, limit = offset + limit, limit * _GROWTH

    def _passes(self, filter: Filter, hit: Hit) -> bool:
        try:
            return matches(filter, {"id": hit.id, **hit.fields})
        except KeyError as error:
            raise Stop(
                f"the word index in {self._folder} was filled without the field {error}; "
                "remove that folder and ingest again"
            ) from error

    def _change(self, gone: Sequence[str], rows: Sequence[Row]) -> None:
        """Documents go and come in one commit; on any failure, in none."""
        refused = [id for id in gone if not id or not is_of_type(id, "string") or len(id.encode()) > MAX_ID_BYTES]
        if refused:
            raise Reject(refused, f"an id must be a UTF-8 text of 1 to {MAX_ID_BYTES} bytes, not {refused[0][:80]!r}")
        if not gone:
            return
        with self._lock, self._calling():
            writer = self._writing()
            try:
                for id in gone:
                    writer.delete_documents_by_term("id", id)
                for row in rows:
                    writer.add_document(_document(row))
                writer.commit()
            except BaseException:
                writer.rollback()
                raise

    def _writing(self) -> tantivy.IndexWriter:
        if self._writer is None:
            index = self._opened(create=True)
            assert index is not None
            self._writer = index.writer(heap_size=_WRITER_BYTES, num_threads=1)
        return self._writer

    def _opened(self, *, create: bool) -> tantivy.Index | None:
        """The index; None where there is none yet and none is to be made."""
        with self._lock, self._calling():
            if not self._is_ours(owner_of(self._folder)):
                self._index = None  # it was never there, or has been taken away since
                if not create:
                    return None
                self._is_ours(claim(self._folder, self._collection))
            if self._index is None:
                if not create and not self._is_made():
                    return None
                self._index = tantivy.Index(_schema(), path=str(self._folder))
                self._index.register_tokenizer(_ANALYZER, self._analyzer)
            return self._index

    def _is_made(self) -> bool:
        return (self._folder / "meta.json").exists()

    def _is_ours(self, owner: str | None) -> bool:
        """False where the folder is nobody's; one that is another's, or whose nobody can tell, is refused."""
        if owner is None and self._is_made():
            raise Stop(
                f"the word index in {self._folder} does not say which collection it belongs to, as it was made by an "
                "older version. Remove that folder and ingest again: it is filled anew, and nothing is encoded again"
            )
        if owner not in (None, self._collection):
            raise WrongUse(
                f"the word index in {self._folder} belongs to collection '{owner}', not to '{self._collection}'. "
                "Set [backend] lexical to a folder of its own for each collection and ingest; or, if "
                f"'{owner}' is no longer searched, remove that folder and ingest again"
            )
        return owner is not None

    @contextmanager
    def _calling(self) -> Iterator[None]:
        """Tantivy reports everything as ValueError."""
        try:
            yield
        except (ValueError, OSError) as error:
            raise self._meaning(error) from error

    def _meaning(self, error: ValueError | OSError) -> BartizanError:
        place, told = f"the word index in {self._folder}", str(error)
        if "LockBusy" in told:
            return Retry(f"{place} is being written by another process; wait until it has ended", after=2.0)
        if _is_full(error):
            return Stop(f"{place} has no room to write: {told}. Make room and run again: what was stored is kept")
        if isinstance(error, OSError):
            return Stop(f"{place} cannot be used: {error.strerror or error}")
        return Stop(
            f"{place} cannot be used: {told}; if it is damaged or from another version, "
            "remove that folder and ingest again"
        )


def _is_full(error: ValueError | OSError) -> bool:
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return any(words in str(error).lower() for words in ("no space left", "file too large", "quota exceeded"))


def _schema() -> tantivy.Schema:
    builder = tantivy.SchemaBuilder()
    builder.add_text_field("id", tokenizer_name="raw", index_option="basic")
    builder.add_text_field("words", tokenizer_name=_ANALYZER, index_option="freq")
    builder.add_bytes_field("row", stored=True, indexed=False)
    return builder.build()


def _analyzer() -> tantivy.TextAnalyzer:
    """Runs of letters and digits, in lower case, without accents, English endings cut."""
    return (
        tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.simple())
        .filter(tantivy.Filter.remove_long(_LONGEST_WORD))
        .filter(tantivy.Filter.lowercase())
        .filter(tantivy.Filter.ascii_fold())
        .filter(tantivy.Filter.stemmer("english"))
        .build()
    )


def _document(row: Row) -> tantivy.Document:
    kept = {"id": row.id, "chunk": row.chunk, "hash": row.hash, "fields": dict(row.fields)}
    document = tantivy.Document()
    document.add_text("id", row.id)
    document.add_text("words", _clean(f"{row.fields.get('title', '')} {row.fields.get('text', '')}"))
    document.add_bytes("row", json.dumps(kept).encode())
    return document


def _stored(searcher: tantivy.Searcher, address: tantivy.DocAddress) -> dict[str, Any]:
    row: dict[str, Any] = json.loads(bytes(searcher.doc(address)["row"][0]))
    return row


def _hit(row: Mapping[str, Any], score: float) -> Hit:
    return Hit(id=row["id"], chunk=row["chunk"], score=score, fields=row["fields"])


def _clean(text: str) -> str:
    """Half a surrogate pair is no word, and no library in Rust takes it."""
    return text.encode(errors="replace").decode()
