"""Lines and records out of files, each with its place (`triples.tsv:17`), one at a time however large the file is."""

import json
from codecs import BOM_UTF8
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from bartizan_connector.base.errors import WrongUse, missing_extra

Placed = tuple[str, str]
"""Where it stands, and the line."""


def lines_of(path: Path, why: str = "") -> Iterator[Placed]:
    """The lines that are not blank; `why` the file is needed is told when it cannot be read."""
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                where = f"{path}:{number}"
                try:
                    text = line.removeprefix(BOM_UTF8 if number == 1 else b"").decode("utf-8").rstrip("\r\n")
                except UnicodeDecodeError as error:
                    raise WrongUse(f"{where}: not UTF-8 (byte {error.start} of the line)") from error
                if text.strip():
                    yield where, text
    except OSError as error:
        raise WrongUse(f"cannot read {path}: {error.strerror}{why and '; '}{why}") from error


def read_table(path: Path, what: str) -> dict[str, str]:
    """Lines of `id ⇥ text`; an id comes once."""
    found: dict[str, str] = {}
    for where, line in lines_of(path):
        id, tab, text = line.partition("\t")
        if not tab or not id.strip() or not text.strip():
            raise WrongUse(f"{where}: expected {what} id ⇥ text, got {line[:80]!r}")
        if found.setdefault(id, text) != text:
            raise WrongUse(f"{where}: the {what} id '{id}' was used before, for another text")
    if not found:
        raise WrongUse(f"{path} holds no {what}")
    return found


def records_of(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The records of a `.jsonl`, `.parquet` or `.arrow` file."""
    if path.suffix not in RECORDS:
        raise WrongUse(f"{path}: expected a file that ends in {', '.join(RECORDS)}")
    return RECORDS[path.suffix](path)


def json_lines(path: Path, why: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """The JSON objects of the file, one a line."""
    for where, line in lines_of(path, why):
        try:
            record = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            raise WrongUse(f"{where}: not a line of JSON ({error})") from error
        if not isinstance(record, dict):
            raise WrongUse(f"{where}: expected a JSON object, got {type(record).__name__}")
        yield where, record


def _parquet(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise missing_extra("pyarrow", "data") from error
    try:
        with parquet.ParquetFile(path) as file:
            yield from _rows(path, file.iter_batches())
    except (OSError, pa.ArrowException) as error:
        raise WrongUse(f"cannot read {path} as parquet: {error}") from error


def _arrow(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """A stream, as `datasets` saves it, or a file of the same."""
    try:
        import pyarrow as pa
    except ImportError as error:
        raise missing_extra("pyarrow", "data") from error
    try:
        with pa.memory_map(str(path)) as mapped:
            try:
                batches = iter(pa.ipc.open_stream(mapped))
            except pa.ArrowInvalid:
                mapped.seek(0)
                reader = pa.ipc.open_file(mapped)
                batches = (reader.get_batch(number) for number in range(reader.num_record_batches))
            yield from _rows(path, batches)
    except (OSError, pa.ArrowException) as error:
        raise WrongUse(f"cannot read {path} as arrow: {error}") from error


def _rows(path: Path, batches: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    number = 0
    for batch in batches:
        for record in batch.to_pylist():
            number += 1
            yield f"{path}: record {number}", record


RECORDS: Mapping[str, Callable[[Path], Iterator[tuple[str, Mapping[str, Any]]]]] = {
    ".jsonl": json_lines,
    ".parquet": _parquet,
    ".arrow": _arrow,
}
"""What reads the records of a file, by the end of its name."""
