"""What stands in the corpus that is ingested."""

import gzip
import json

from tests.trial.uses import Use, uses


def _one_bad(line: str, told: str, *, name: str | None = None) -> list[Use]:
    """A bad line beside a good one: set aside, told, and with --strict a failure."""
    good = '{"_id": "good", "text": "one tower"}\n'
    return uses(
        "a bad line",
        (
            "ingest --strict",
            1,
            "1 line could not be stored; see the reasons in .*corpus.jsonl.dead.jsonl",
            {
                "files": {"corpus.jsonl": good.encode() + line.encode("utf-8", "surrogatepass") + b"\n"},
                "name": name or line[:100],
            },
        ),
    )


def _dead(content: bytes, told: str, name: str, path: str = "corpus.jsonl") -> list[Use]:
    """A file of which nothing can be stored."""
    return uses(
        "a dead file", ("ingest", 1, told, {"files": {path: content}, "name": name, "swap": {"corpus.jsonl": path}})
    )


_RECORDS = [{"_id": str(number), "text": "one tower"} for number in range(3)]
_LINES = b"".join(json.dumps(record).encode() + b"\n" for record in _RECORDS)

USES = [
    *_one_bad("not JSON", ""),
    *_one_bad('{"_id": "a", "text": "b"', ""),
    *_one_bad('["a", "b"]', ""),
    *_one_bad("null", ""),
    *_one_bad('{"text": "no id"}', ""),
    *_one_bad('{"_id": "", "text": "b"}', ""),
    *_one_bad('{"_id": "a"}', ""),
    *_one_bad('{"_id": "a", "title": "", "text": ""}', ""),
    *_one_bad('{"_id": 1.5, "text": "b"}', ""),
    *_one_bad('{"_id": ["a"], "text": "b"}', ""),
    *_one_bad('{"_id": true, "text": "b"}', ""),
    *_one_bad('{"_id": "a", "text": 3}', ""),
    *_one_bad('{"_id": "a", "text": ["b"]}', ""),
    *_one_bad('{"_id": "a", "text": "b", "year": "2000"}', ""),
    *_one_bad('{"_id": "a", "text": "b", "year": 1e400}', ""),
    *_one_bad('{"_id": "a", "text": "b", "year": NaN}', ""),
    *_one_bad('{"_id": "a", "text": "b", "year": 99999999999999999999}', ""),
    *_one_bad('{"_id": "a", "text": "b", "lang": 5}', ""),
    *_one_bad('{"_id": "a", "text": "b", "_version": "3"}', ""),
    *_one_bad('{"_id": "a", "text": "b", "_version": -1}', ""),
    *_one_bad('{"_id": "a", "text": "b", "_delete": true}', ""),
    *_one_bad('{"_id": "a", "_deleted": "yes"}', ""),
    *_one_bad('{"_id": "a", "_id": "b", "text": "c"}', ""),
    *_one_bad('{"_id": "a", "id": "b", "text": "c"}', ""),
    *_one_bad('{"_id": "a", "text": "\\ud800"}', ""),
    *_one_bad('{"_id": "' + "x" * 600 + '", "text": "b"}', "", name="an id of 600 bytes"),
    *_one_bad('{"_id": "a", "text": "' + "x" * 70_000 + '"}', "", name="a text of 70,000 bytes"),
    *_one_bad("[" * 100_000, "", name="100,000 brackets"),
    *_dead(b"id,text\n1,one\n2,two\n", "every line of .* was refused.*CSV", "a CSV"),
    *_dead(b"id\ttext\n1\tone\n", "a table with tabs", "a TSV"),
    *_dead(gzip.compress(_LINES), "seems to be gzip; let its name end in .gz", "gzip without its ending"),
    *_dead(b"no archive", "cannot read .*corpus.jsonl.gz", "no gzip with its ending", "corpus.jsonl.gz"),
    *_dead(gzip.compress(_LINES)[:-20], "cannot read .*corpus.jsonl.gz", "half a gzip", "corpus.jsonl.gz"),
    *_dead(json.dumps(_RECORDS).encode(), "one JSON array.*jq -c", "a JSON array"),
    *_dead(json.dumps(_RECORDS, indent=1).encode(), "one JSON array.*jq -c", "a JSON array over many lines"),
    *_dead(json.dumps(_RECORDS[0], indent=1).encode(), "JSON over several lines", "one record over many lines"),
    *_dead((40).to_bytes(8, "little") + b'{"w":{}}' + bytes(60), "a weights file", "safetensors"),
    *_dead(b"PK\x03\x04" + bytes(60), "a ZIP archive", "a ZIP archive"),
    *_dead("\n".join(map(json.dumps, _RECORDS)).encode("utf-16"), "UTF-16", "JSON lines in UTF-16"),
    *_dead(b"<html>\n</html>\n", "XML or HTML", "a web page"),
    *_dead(b'{"docid": "a", "body": "b"}\n', "every line .* was refused .*_id", "JSON lines with other keys"),
    *uses(
        "corpus",
        (
            "ingest",
            0,
            "nothing was read: the source is empty",
            {"files": {"corpus.jsonl": ""}, "name": "an empty file"},
        ),
        (
            "ingest",
            0,
            r"keys that are not declared under \[collection\] fields were not stored: url \(1\)",
            {
                "files": {"corpus.jsonl": '{"_id": "n", "text": "b", "url": "c"}\n'},
                "name": "a key that is not declared",
            },
        ),
        (
            "ingest",
            0,
            "longer than a tower reads",
            {
                "files": {"corpus.jsonl": '{"_id": "n", "text": "' + "one " * 100 + '"}\n'},
                "name": "a text too long for the tower",
            },
        ),
        (
            "ingest",
            0,
            "1 line (is )?older than what is stored, or with an id that comes again",
            {
                "files": {"corpus.jsonl": '{"_id": "n", "text": "b"}\n{"_id": "n", "text": "c"}\n'},
                "name": "an id twice",
            },
        ),
        (
            "ingest",
            2,
            "dead letters would overwrite|is the root",
            {"swap": {"corpus.jsonl": "/"}, "name": 'path = "/"'},
        ),
        ("ingest", 2, "holds no .*jsonl", {"swap": {'"corpus.jsonl"': '"{export}"'}, "name": "a folder of a tower"}),
    ),
]
