"""What a record becomes: its place, its version, and what decoders make of key and value."""

import json
import time
from collections import namedtuple
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bartizan_connector.base.errors import Reject, WrongUse
from bartizan_connector.store.collection import Collection
from bartizan_connector.stream.kafka.debezium import debezium
from bartizan_connector.stream.kafka.messages import decoder, message_of, plain
from bartizan_connector.stream.records import Put, Remove, decode
from bartizan_connector.stream.versions import latest, stamp
from bartizan_connector.testing.encoder_fake import HashEncoder
from tests.connector.stream.streams import collection_for

Record = namedtuple("Record", ["topic", "partition", "offset", "timestamp", "key", "value", "headers"])
COLLECTION: Collection = collection_for(HashEncoder(dim=8).spec)


def record(key: bytes | None = b"a", value: bytes | None = b'{"text": "one"}', **more: Any) -> Any:
    facts = {"topic": "docs", "partition": 3, "offset": 1204, "timestamp": 1_700_000_000_000, "headers": []} | more
    return Record(key=key, value=value, **facts)


def read(came: Any, name: str = "json", **more: Any) -> Put | Remove:
    return decode(message_of(came, origin="o#1", decode=decoder(name), **more), COLLECTION)


def test_a_record_is_a_document_at_its_place() -> None:
    message = message_of(record(), origin="o#1", decode=plain)
    assert (message.position, message.key, message.timestamp) == ("docs[3]@1204", "a", 1_700_000_000.0)
    put = decode(message, COLLECTION)
    assert isinstance(put, Put)
    assert (put.id, put.text, put.origin, put.offset) == ("a", "one", "o#1", 1204)
    assert put.version == stamp(1_700_000_000_000, 1204)


def test_a_null_value_removes_its_key() -> None:
    assert read(record(value=None)) == Remove(id="a", version=stamp(1_700_000_000_000, 1204), origin="o#1", offset=1204)


def test_no_version_lies_in_the_future_whatever_a_producer_says() -> None:
    ahead = int((time.time() + 86_400) * 1000)
    assert message_of(record(timestamp=ahead), origin="o", decode=plain).version <= latest(time.time())
    assert message_of(record(timestamp=-1), origin="o", decode=plain).version == 1204


def test_a_header_may_hold_the_records_own_version() -> None:
    change = read(record(headers=[("rev", b"41"), ("rev", b"42")]), version_header="rev")
    assert (change.version, change.origin, change.offset) == (42, "", 0)
    assert read(record(), version_header="rev").origin == "o#1"  # where it is not, the place decides
    with pytest.raises(Reject, match=r"the header 'rev' must hold an int from 0"):
        read(record(headers=[("rev", b"-1")]), version_header="rev")


def test_a_form_of_tomorrow_is_refused_by_name() -> None:
    assert read(record(headers=[("bartizan.schema", b"1")])).id == "a"
    with pytest.raises(Reject, match="says form '2'; this release reads form 1"):
        read(record(headers=[("bartizan.schema", b"2")]))


def test_a_key_that_is_no_text_is_refused() -> None:
    with pytest.raises(Reject, match="the key is not UTF-8: byte 0xff at 1"):
        read(record(key=b"\xff"))


def test_the_record_stays_as_it_came() -> None:
    came = record(key=b"\xff")
    assert message_of(came, origin="o", decode=plain).record is came
    assert message_of(came, origin="o", decode=plain).value == came.value


def test_an_unknown_decoder_is_refused_with_those_there_are() -> None:
    with pytest.raises(WrongUse, match=r"decoder = 'avro': there is none of that name; there are debezium, json"):
        decoder("avro")


ROW = {"id": 7, "title": "A tower", "text": "one of two", "year": 1999}


@pytest.mark.parametrize("with_schema", [False, True])
@pytest.mark.parametrize("op", ["c", "r", "u"])
def test_debezium_puts_the_row_as_it_is_after_the_change(op: str, with_schema: bool) -> None:
    key, value = {"id": 7}, {"before": None, "after": ROW, "source": {"ts_ms": 1}, "op": op, "ts_ms": 2}
    pack = (lambda each: {"schema": {"type": "struct"}, "payload": each}) if with_schema else (lambda each: each)
    put = read(record(json.dumps(pack(key)).encode(), json.dumps(pack(value)).encode()), "debezium")
    assert isinstance(put, Put)
    assert (put.id, put.title, put.text, put.fields["year"]) == ("7", "A tower", "one of two", 1999)


@pytest.mark.parametrize("value", [b'{"before": {"id": 7}, "after": null, "op": "d"}', None])
def test_debezium_deletes_by_an_op_and_by_the_null_that_follows_it(value: bytes | None) -> None:
    change = read(record(b'{"id": 7}', value), "debezium")
    assert isinstance(change, Remove)
    assert change.id == "7"


@pytest.mark.parametrize(
    ("key", "id"),
    [
        (b"plain", "plain"),
        (b'{"nr": 5}', "5"),
        (b'{"tenant": 1, "id": "x"}', "x"),
        (b'{"schema": 1, "payload": {"nr": "y"}}', "y"),
    ],
)
def test_debezium_keys(key: bytes, id: str) -> None:
    assert debezium(key, None) == (id, None)


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        (b'{"a": 1, "b": 2}', b"{}", "the key has the columns a, b: one of them must be called _id or id"),
        (b"7", b"{", "the Debezium value is not JSON"),
        (b"7", b'{"text": "a"}', "there is no 'op'; where the values are plain rows, set decoder"),
        (b"7", b'{"op": "t"}', "the Debezium op 't' changes no document"),
        (b"7", b'{"op": "u", "after": null}', "whose 'after' is no row"),
        (None, b'{"op": "d"}', "nothing says what is to be removed"),
    ],
)
def test_what_is_no_envelope_is_refused_with_the_reason(key: bytes | None, value: bytes, why: str) -> None:
    with pytest.raises(Reject, match=why):
        debezium(key, value)


@given(st.none() | st.binary(), st.none() | st.binary(), st.sampled_from(["json", "debezium"]))
def test_any_bytes_are_a_change_or_a_reason(key: bytes | None, value: bytes | None, name: str) -> None:
    reason = ""
    try:
        id = read(record(key, value), name).id
    except Reject as error:
        id, reason = "", error.reason
    assert bool(id) != bool(reason)
