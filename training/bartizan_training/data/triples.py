"""Triples: a query, a document that answers it, one that does not or does so less, and maybe a teacher's scores."""

from bartizan_training.data.collections import BeirData
from bartizan_training.data.digests import digest_of_files
from bartizan_training.data.held_out import HeldOut
from bartizan_training.data.triple_lines import add_lines
from bartizan_training.data.triple_records import add_judged, add_records
from bartizan_training.data.triple_rows import Rows, Triples
from bartizan_training.data.triple_tables import Judged, Records, TripleLines

Source = Judged | TripleLines | Records


def read_triples(table: Source) -> Triples:
    """All rows of the source but those of queries that are for testing."""
    match table:
        case Judged():
            data = BeirData.read(table.path)
            rows = Rows(HeldOut.read(table.path, table.held_out_split), str(table.path))
            add_judged(rows, table, data)
        case TripleLines():
            rows = Rows(HeldOut.read(table.held_out or table.path, table.held_out_split), str(table.lines))
            add_lines(rows, table)
        case Records():
            rows = Rows(HeldOut.read(table.held_out, table.held_out_split), str(table.files[0]))
            add_records(rows, table)
    return rows.made()


def identity_of(table: Source) -> str:
    """Identity of what `read_triples` would read: an artefact that is made from it has another key when it changes."""
    return digest_of_files(file for file in table.rests_on() if file.exists())
