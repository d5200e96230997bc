"""Packed files are read as plain ones; a file that holds no JSON lines at all is told for what it seems to be."""

import gzip
import json
import struct
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pytest

from bartizan_connector.base.errors import Stop, WrongUse
from bartizan_connector.stream.jsonl import JsonlSource
from bartizan_connector.stream.source import Judging, Message
from bartizan_connector.testing.source import Medium, SourceSuite
from tests.connector.stream.test_jsonl import JsonlMedium, read

LINES = b"".join(json.dumps({"_id": str(number)}).encode() + b"\n" for number in range(500))


def zst(content: bytes) -> bytes:
    sink = pyarrow.BufferOutputStream()
    with pyarrow.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return bytes(sink.getvalue().to_pybytes())


PACKERS: dict[str, Callable[[bytes], bytes]] = {".gz": gzip.compress, ".zst": zst}


class GzipMedium(JsonlMedium):
    def __init__(self, folder: Path) -> None:
        self.path = folder / "corpus.jsonl.gz"

    def fill(self, values: list[bytes]) -> None:  # type: ignore[override]
        self.path.write_bytes(gzip.compress(b"".join(value + b"\n" for value in values)))


class TestPackedSource(SourceSuite):
    def make(self, folder: Path) -> Medium:
        return GzipMedium(folder)


@pytest.mark.parametrize("suffix", PACKERS)
def test_a_packed_file_gives_the_lines_of_the_plain_one(tmp_path: Path, suffix: str) -> None:
    (tmp_path / "a.jsonl").write_bytes(LINES)
    packed = tmp_path / f"a.jsonl{suffix}"
    packed.write_bytes(PACKERS[suffix](LINES[:700]) + PACKERS[suffix](LINES[700:]))  # two frames, as `cat` leaves them
    plain = [message.value for message in read(JsonlSource(tmp_path / "a.jsonl"))]
    source = JsonlSource(packed)
    assert source.backlog() is None
    messages = read(source)
    assert [message.value for message in messages] == plain
    assert messages[2].position == f"a.jsonl{suffix}:3"


def test_a_folder_gives_plain_and_packed_files_in_order_of_name(tmp_path: Path) -> None:
    (tmp_path / "b.jsonl").write_bytes(b"b\n")
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b"a\n"))
    (tmp_path / "c.jsonl.zst").write_bytes(zst(b"c\n"))
    assert [message.value for message in read(JsonlSource(tmp_path))] == [b"a", b"b", b"c"]


@pytest.mark.parametrize("suffix", PACKERS)
def test_a_packed_file_that_is_cut_or_none_is_told_and_what_came_before_is_kept(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.jsonl{suffix}"
    for content in (PACKERS[suffix](LINES)[:-30], b"no archive at all"):
        path.write_bytes(content)
        with pytest.raises(Stop, match=r"cannot read .*a\.jsonl.*; what was read before it is stored"):
            read(JsonlSource(path))


def test_an_overlong_line_of_a_packed_file_is_passed_over(tmp_path: Path) -> None:
    for suffix, pack in PACKERS.items():
        path = tmp_path / f"a.jsonl{suffix}"
        path.write_bytes(pack(b"first\n" + b"x" * 5000 + b"\nlast\n"))
        first, long, last = read(JsonlSource(path, max_line_bytes=100))
        assert (first.value, last.value) == (b"first", b"last")
        assert "has 5,000 bytes (from byte 6 of the file)" in str(long.fault)


SEEMING = {
    "CSV": b"id,title,text\n1,a,b\n2,c,d\n",
    "a table with tabs": b"id\ttext\n1\ta\n",
    "gzip; let its name end in .gz": gzip.compress(LINES),
    "Zstandard; let its name end in .zst": zst(LINES),
    "one JSON array; .* jq -c '.\\[\\]' docs.jsonl": b'[\n{"_id": "a", "text": "b"},\n{"_id": "c", "text": "d"}\n]\n',
    "JSON over several lines": b'{\n "_id": "a",\n "text": "b"\n}\n',
    "a weights file .safetensors.": struct.pack("<Q", 40) + b'{"w":{"dtype":"F32"}}' + bytes(50),
    "a ZIP archive .or a weights file": b"PK\x03\x04" + bytes(30),
    "Parquet": b"PAR1" + bytes(30),
    "XML or HTML": b"<html>\n<body>\n",
    "UTF-16": "a\nb".encode("utf-16"),
    "binary data": bytes(range(20, 40)) + b"\0\n",
    "plain text": b"once upon a time\nthere was\n",
}


@pytest.mark.parametrize("seems", SEEMING)
def test_a_file_of_which_every_line_is_refused_is_told_for_what_it_seems_to_be(tmp_path: Path, seems: str) -> None:
    path = tmp_path / "docs.jsonl"
    path.write_bytes(SEEMING[seems])
    (tmp_path / "good.jsonl").write_bytes(b'{"_id": "a", "text": "b"}\n')
    source: JsonlSource = JsonlSource(tmp_path)
    assert isinstance(source, Judging)
    for message in read(source):
        if message.position.startswith("docs"):
            source.dead_letter(message, "not JSON")
    source.close()
    with pytest.raises(
        AssertionError,
        match=rf"docs\.jsonl was refused \(\d+\), the first because: not JSON. The file seems to be {seems}",
    ):
        assert source.verdict() is None, source.verdict()


def test_a_file_with_one_good_line_is_what_it_says(tmp_path: Path) -> None:
    (tmp_path / "docs.jsonl").write_bytes(b"bad\ngood\n")
    source = JsonlSource(tmp_path)
    bad: Message = read(source)[0]
    source.dead_letter(bad, "not JSON")
    source.close()
    assert source.verdict() is None


@pytest.mark.parametrize("path", [".", "./", "..", "sub/.."])
def test_the_folder_one_is_in_has_a_place_for_its_dead_letters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    here = tmp_path / "here"
    (here / "sub").mkdir(parents=True)
    (here / "a.jsonl").write_bytes(b"a\n")
    monkeypatch.chdir(here / "sub" if path == ".." else here)
    source = JsonlSource(Path(path))
    assert Path(source.dead_letters) == tmp_path / "here.dead.jsonl"
    assert len(read(source)) == 1


def test_the_root_of_all_files_is_refused() -> None:
    with pytest.raises(WrongUse, match="is the root of all files"):
        JsonlSource(Path("/"))
