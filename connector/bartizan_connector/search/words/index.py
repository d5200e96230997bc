"""WordIndex: the lexical leg, BM25 over title and text in a Tantivy index on disk.

Filters are evaluated here, on the stored fields, by the same code as everywhere else.
"""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Lock

from bartizan_connector.base.errors import Reject, Retry, Stop, WrongUse
from bartizan_connector.search.words.analysis import ANALYZER, analyzer, query_for
from bartizan_connector.search.words.documents import document_of, hit_of, schema, stored_at
from bartizan_connector.search.words.engine import tantivy
from bartizan_connector.search.words.failures import calling
from bartizan_connector.search.words.journal import Journal
from bartizan_connector.search.words.leftovers import left_behind
from bartizan_connector.search.words.ownership import owner_of, require_free, take
from bartizan_connector.store.collection import MAX_ID_BYTES, Hit, Row, is_of_type
from bartizan_connector.store.filters import Filter, matches

_WRITER_BYTES = 32_000_000
_GROWTH = 4


class WordIndex:
    """Words of one collection's documents, in a folder of their own. Safe to share between threads; a search never
    waits for a write.

    A folder of another collection is refused at once. One process writes at a time; others see what was written at
    their next search."""

    def __init__(self, folder: Path, collection: str) -> None:
        self._folder = folder
        self._collection = collection
        self._opening = Lock()
        """Held while `_index` is looked at or set, never while something is written."""
        self._index: tantivy.Index | None = None
        self._writing = Lock()
        """Held by whoever writes, to the end of the commit."""
        self._writer: tantivy.IndexWriter | None = None
        self._analyzer = analyzer()
        self._journal = Journal(folder)
        with calling(folder):
            self._is_ours(owner_of(folder))

    def hashes(self, ids: Sequence[str]) -> Mapping[str, str]:
        """The hash of each of these ids that is indexed."""
        with calling(self._folder):
            index = self._opened(create=False)
            if index is None:
                return {}
            index.reload()
            searcher = index.searcher()
            found: dict[str, str] = {}
            for id in ids:
                if is_of_type(id, "string"):
                    query = tantivy.Query.term_query(index.schema, "id", id)
                    for _, address in searcher.search(query, 1, count=False).hits:
                        found[id] = str(stored_at(searcher, address)["hash"])
            return found

    def announced(self) -> Sequence[str]:
        """The ids about which the store may have changed without the words: what a kill left unsettled."""
        with calling(self._folder):
            return self._journal.announced()

    def announce(self, ids: Sequence[str]) -> None:
        """The store is about to change these ids; durable on return."""
        with self._writing, calling(self._folder):
            self._open_writer()  # whose lock also keeps other writers from the journal
            self._journal.announce(ids)

    def settle(self) -> None:
        """The words agree with the store about all that was announced."""
        with self._writing, calling(self._folder):
            self._journal.settle()

    def filled_from(self) -> str | None:
        """The physical collection whose words these are; None where nobody has said so yet."""
        with calling(self._folder):
            return self._journal.filled_from()

    def fill_from(self, physical: str) -> None:
        """These are that collection's words from now on."""
        with self._writing, calling(self._folder):
            self._open_writer()
            self._journal.fill_from(physical)

    def probe(self) -> None:
        """Make an empty commit, as every write ends with one: what would stop an ingest stops this."""
        with self._writing, calling(self._folder):
            self._open_writer().commit()

    def pages(self, size: int = 1000) -> Iterator[Mapping[str, str]]:
        """Id → hash of everything that is indexed, as it was when the first page was asked for."""
        with calling(self._folder):
            index = self._opened(create=False)
            if index is None:
                return
            index.reload()
            searcher = index.searcher()
            offset = 0
            while page := searcher.search(tantivy.Query.all_query(), size, count=False, offset=offset).hits:
                rows = [stored_at(searcher, address) for _, address in page]
                yield {str(row["id"]): str(row["hash"]) for row in rows}
                offset += size

    def upsert(self, rows: Sequence[Row]) -> None:
        """Replace each id that occurs by exactly the rows given for it; durable on return."""
        last = {(row.id, row.chunk): row for row in rows}
        self._change(list({row.id: None for row in rows}), list(last.values()))

    def delete(self, ids: Sequence[str]) -> None:
        """Remove these ids; durable on return."""
        self._change(ids, [])

    def clear(self) -> None:
        """Forget every document of the collection; the folder stays its own."""
        with self._writing, calling(self._folder):
            if self._opened(create=False) is None:
                return
            writer = self._open_writer()
            writer.delete_all_documents()
            writer.commit()

    def search(self, text: str, k: int, filter: Filter | None = None, *, timeout: float | None = None) -> list[Hit]:
        """The k best rows by BM25, ties in order of (id, chunk). A text without any word finds nothing."""
        if k < 1:
            raise WrongUse(f"k = {k}: ask for at least one result")
        deadline = None if timeout is None else time.monotonic() + timeout
        with calling(self._folder):
            index = self._opened(create=False)
            if index is None:
                raise WrongUse(f"there is no word index in {self._folder}; ingest documents with [backend] lexical set")
            query = query_for(text, self._analyzer, index.schema)
            index.reload()
            hits = self._ranked(index.searcher(), query, k, filter, deadline)
        return sorted(hits, key=lambda hit: (-hit.score, hit.id, hit.chunk))[:k]

    def close(self) -> None:
        """Let other processes write. Closing twice is fine."""
        with self._writing, calling(self._folder):
            writer, self._writer = self._writer, None
            if writer is not None:
                writer.wait_merging_threads()
        with self._opening:
            self._index = None

    def _ranked(
        self, searcher: tantivy.Searcher, query: tantivy.Query, k: int, filter: Filter | None, deadline: float | None
    ) -> list[Hit]:
        """Page after page until k rows pass and the k-th score does not go on beyond the page."""
        hits: list[Hit] = []
        offset, limit = 0, k + 1
        while True:
            page = searcher.search(query, limit, count=False, offset=offset).hits
            for score, address in page:
                hit = hit_of(stored_at(searcher, address), score)
                if filter is None or self._passes(filter, hit):
                    hits.append(hit)
            if len(page) < limit or (len(hits) >= k and page[-1][0] < hits[k - 1].score):
                return hits
            if deadline is not None and time.monotonic() > deadline:
                raise Retry(f"the word index in {self._folder} had not answered by the deadline", after=0.0)
            offset, limit = offset + limit, limit * _GROWTH

    def _passes(self, filter: Filter, hit: Hit) -> bool:
        try:
            return matches(filter, {"id": hit.id, "chunk": hit.chunk, **hit.fields})
        except KeyError as error:
            raise Stop(
                f"the word index in {self._folder} was filled without the field {error}; "
                "set [backend] lexical to a new folder and ingest again"
            ) from error

    def _change(self, gone: Sequence[str], rows: Sequence[Row]) -> None:
        """Documents go and come in one commit; on any failure, in none."""
        refused = [id for id in gone if not id or not is_of_type(id, "string") or len(id.encode()) > MAX_ID_BYTES]
        if refused:
            raise Reject(refused, f"an id must be a UTF-8 text of 1 to {MAX_ID_BYTES} bytes, not {refused[0][:80]!r}")
        if not gone:
            return
        with self._writing, calling(self._folder):
            writer = self._open_writer()
            try:
                for id in gone:
                    writer.delete_documents_by_term("id", id)
                for row in rows:
                    writer.add_document(document_of(row))
                writer.commit()
            except BaseException:
                self._writer = None
                with suppress(ValueError):  # what failed first is told
                    writer.rollback()
                    writer.wait_merging_threads()
                raise

    def _open_writer(self) -> tantivy.IndexWriter:
        if self._writer is None:
            index = self._opened(create=True)
            assert index is not None
            writer = index.writer(heap_size=_WRITER_BYTES, num_threads=1)
            if left_behind(self._folder):
                writer.commit()
            self._writer = writer
        return self._writer

    def _opened(self, *, create: bool) -> tantivy.Index | None:
        """The index; None where there is none yet and none is to be made."""
        with self._opening:
            if not self._is_ours(owner_of(self._folder)):
                self._index = None  # it was never there, or has been taken away since
                if not create:
                    return None
                self._is_ours(take(self._folder, self._collection))
            if self._index is None:
                if not create and not self._is_made():
                    return None
                self._index = tantivy.Index(schema(), path=str(self._folder))
                self._index.register_tokenizer(ANALYZER, self._analyzer)
            return self._index

    def _is_made(self) -> bool:
        return (self._folder / "meta.json").exists()

    def _is_index(self) -> bool:
        """Whether `meta.json` is Tantivy's; other programs call files so too."""
        try:
            return "schema" in json.loads((self._folder / "meta.json").read_bytes())
        except (ValueError, TypeError, OSError):
            return False

    def _is_ours(self, owner: str | None) -> bool:
        """False where the folder is nobody's; one that is another's, or whose nobody can tell, is refused."""
        if owner is None and self._is_made() and self._is_index():
            raise Stop(
                f"the word index in {self._folder} does not say which collection it belongs to, as it was made by an "
                "older version. Set [backend] lexical to a new folder and ingest again: it is filled anew, and nothing "
                "is encoded again"
            )
        if owner is None:
            require_free(self._folder)
        if owner not in (None, self._collection):
            raise WrongUse(
                f"the word index in {self._folder} belongs to collection '{owner}', not to '{self._collection}'. "
                "Set [backend] lexical to a folder of its own for each collection, and ingest"
            )
        return owner is not None
