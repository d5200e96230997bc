"""Files of hard negatives: JSON, one query a line, {"query": id, "negatives": [document ids]}; or, in a file that ends
in .tsv, query id ⇥ document id, one negative a line."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from bartizan_connector.base.aside import write_aside
from bartizan_connector.base.errors import WrongUse
from bartizan_training.data.lines import lines_of

NEGATIVES_FILE = "negatives.jsonl"


def read_negatives(path: Path) -> dict[str, list[str]]:
    """Query id → ids of documents that do not answer it."""
    mined: dict[str, list[str]] = {}
    if path.suffix == ".tsv":
        for where, line in lines_of(path):
            query, _, document = line.partition("\t")
            if not query or not document or "\t" in document:
                raise WrongUse(f"{where}: expected query id ⇥ document id, got {line[:80]!r}")
            mined.setdefault(query, []).append(document)
        return mined
    for where, line in lines_of(path):
        try:
            record = json.loads(line)
            query, negatives = record["query"], record["negatives"]
            if not isinstance(query, str) or not all(isinstance(document_id, str) for document_id in negatives):
                raise TypeError("ids must be strings")
        except (ValueError, KeyError, TypeError) as error:
            form = '{"query": id, "negatives": [document ids]}, ids as strings'
            raise WrongUse(f"{where}: expected a line {form}, but {line[:80]!r} came") from error
        mined[query] = negatives
    return mined


def write_negatives(path: Path, mined: Mapping[str, Sequence[str]]) -> None:
    """Save what `read_negatives` reads, whole or not at all."""
    if path.suffix == ".tsv":
        pairs = (f"{query}\t{document}\n" for query, negatives in mined.items() for document in negatives)
        write_aside(path, "".join(pairs))
        return
    records = ({"query": query, "negatives": list(negatives)} for query, negatives in mined.items())
    write_aside(path, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))
