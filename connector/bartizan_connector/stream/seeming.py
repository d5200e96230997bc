"""What a file seems to be that holds no JSON lines, told by its beginning, and what to do with it."""

import csv
import json
from pathlib import Path

_BEGINNING_BYTES = 65_536
_MAGIC = (
    (b"\x1f\x8b", "gzip; let its name end in .gz, and it is unpacked"),
    (b"\x28\xb5\x2f\xfd", "Zstandard; let its name end in .zst, and it is unpacked"),
    (b"BZh", "bzip2; unpack it"),
    (b"\xfd7zXZ\0", "xz; unpack it"),
    (b"PK\x03\x04", "a ZIP archive (or a weights file, a table or a text in one); unpack it"),
    (b"PAR1", "Parquet; write its rows as JSON lines"),
    (b"ARROW1", "Arrow; write its rows as JSON lines"),
    (b"SQLite format 3\0", "an SQLite file (such as an index); write its rows as JSON lines"),
    (b"GGUF", "a weights file (GGUF), not documents"),
    (b"\x93NUMPY", "an array of NumPy, not documents"),
    (b"\x89HDF", "a weights file (HDF5), not documents"),
    (b"\x80\x02", "a weights file (a pickle of torch), not documents"),
    (b"\x80\x04", "a pickle, not documents"),
    (b"%PDF", "a PDF; write its text as JSON lines"),
    (b"\xff\xfe", "UTF-16; convert it: iconv -f UTF-16 -t UTF-8"),
    (b"\xfe\xff", "UTF-16; convert it: iconv -f UTF-16 -t UTF-8"),
)
_AS_LINES = 'write each row as a line {"_id": "…", "title": "…", "text": "…"}'


def seeming(path: Path, beginning: bytes) -> str:
    """What the file `path` seems to be, by its first bytes as they are read, and the way out; empty: nothing known."""
    for magic, what in _MAGIC:
        if beginning.startswith(magic):
            return what
    if 2 <= int.from_bytes(beginning[:8], "little") < 2**32 and beginning[8:9] == b"{":
        return "a weights file (safetensors), not documents"
    if b"\0" in beginning:
        return "binary data, not text"
    text = beginning.decode("utf-8", errors="replace").lstrip("\ufeff \t\r\n")
    if text.startswith("["):
        return f"one JSON array; write each element as a line of its own: jq -c '.[]' {path.name}"
    if text.startswith("{"):
        return "" if _is_object(text.split("\n", 1)[0]) else f"JSON over several lines: jq -c . {path.name}"
    if text.startswith("<"):
        return f"XML or HTML; {_AS_LINES}"
    rows = [line for line in text.splitlines()[:5] if line.strip()]
    for name, mark in (("a table with tabs (TSV)", "\t"), ("CSV", ","), ("CSV with semicolons", ";")):
        widths = {len(row) for row in csv.reader(rows, delimiter=mark)}
        if rows and len(widths) == 1 and widths.pop() > 1:
            return f"{name}; {_AS_LINES}"
    return f"plain text; {_AS_LINES}"


def _is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def beginning_of(path: Path) -> bytes:
    """The first bytes of the file as it lies there; empty where they cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(_BEGINNING_BYTES)
    except OSError:
        return b""
