"""Files of hard negatives, one query a line: {"query": id, "negatives": [document ids]}."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from bartizan_connector.base.errors import WrongUse
from bartizan_training.data.collections import read_lines, write_lines

NEGATIVES_FILE = "negatives.jsonl"


def read_negatives(path: Path) -> dict[str, list[str]]:
    """Query id → ids of documents that do not answer it."""
    mined: dict[str, list[str]] = {}
    for number, line in enumerate(read_lines(path), start=1):
        try:
            record = json.loads(line)
            query, negatives = record["query"], record["negatives"]
            if not isinstance(query, str) or not all(isinstance(document_id, str) for document_id in negatives):
                raise TypeError("ids must be strings")
        except (ValueError, KeyError, TypeError) as error:
            form = '{"query": id, "negatives": [document ids]}, ids as strings'
            raise WrongUse(f"{path}:{number}: expected a line {form}, but {line[:80]!r} came") from error
        mined[query] = negatives
    return mined


def write_negatives(path: Path, mined: Mapping[str, Sequence[str]]) -> None:
    """Save what `read_negatives` reads."""
    write_lines(path, ({"query": query, "negatives": list(negatives)} for query, negatives in mined.items()))
