"""Messages become changes, or are refused with the precise reason."""

import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bartizan_connector.base.errors import Reject
from bartizan_connector.store.collection import MAX_ID_BYTES, MAX_STRING_BYTES, Collection, FieldSpec, Leg
from bartizan_connector.stream.records import MAX_TEXT_BYTES, Change, Cut, Put, Remove, decode, text_of
from bartizan_connector.stream.source import Message

COLLECTION = Collection(
    name="docs",
    legs=(Leg(name="dense", kind="dense", dim=4, space_id="tw-0"),),
    fields=(
        FieldSpec(name="title", type="string", default=""),
        FieldSpec(name="text", type="string", default=""),
        FieldSpec(name="year", type="int", default=0),
        FieldSpec(name="weight", type="float", default=1.0),
        FieldSpec(name="public", type="bool", default=True),
        FieldSpec(name="lang", type="string"),
    ),
)
GOOD: dict[str, Any] = {"_id": "a", "title": "T", "text": "x", "lang": "en"}


def message(value: bytes | None, **more: Any) -> Message:
    return Message(position="corpus.jsonl:1", value=value, version=more.pop("version", 7), **more)


def record(**more: Any) -> Message:
    return message(json.dumps(GOOD | more).encode())


def reason(refused: Message) -> str:
    with pytest.raises(Reject) as caught:
        decode(refused, COLLECTION)
    return caught.value.reason


def put(accepted: Message) -> Put:
    change = decode(accepted, COLLECTION)
    assert isinstance(change, Put)
    return change


def test_a_record_becomes_a_document_with_its_fields_and_defaults() -> None:
    assert put(record(year=2020)) == Put(
        id="a",
        title="T",
        text="x",
        fields={"title": "T", "text": "x", "year": 2020, "weight": 1.0, "public": True, "lang": "en"},
        version=7,
    )


def test_what_is_encoded_is_title_space_text() -> None:
    assert put(record(title="Time", text="sleep")).encoded == "Time sleep"
    assert put(record(title="", text=" sleep ")).encoded == "sleep"
    assert text_of("Time", "") == "Time"


def test_id_can_stand_without_its_underscore_or_be_an_int() -> None:
    assert put(message(b'{"id": "b", "text": "x", "lang": "en"}')).id == "b"
    assert put(record(_id=12)).id == "12"
    assert put(record(id="a")).id == "a"


def test_the_key_of_a_message_is_its_id_when_the_record_has_none() -> None:
    assert put(message(b'{"text": "x", "lang": "en"}', key="k")).id == "k"
    assert reason(message(json.dumps(GOOD).encode(), key="k")) == "more than one id: a, k"


def test_a_version_of_the_record_overrides_that_of_the_message() -> None:
    assert put(record()).version == 7
    assert put(record(_version=0)).version == 0
    assert put(record(_version=2**63 - 1)).version == 2**63 - 1


def test_a_delete_needs_only_an_id() -> None:
    assert decode(message(b'{"_id": "a", "_deleted": true, "_version": 9}'), COLLECTION) == Remove(id="a", version=9)
    assert decode(message(None, key="a"), COLLECTION) == Remove(id="a", version=7)
    assert put(record(_deleted=False)).id == "a"


def test_null_counts_as_absent() -> None:
    assert put(record(title=None, year=None, _version=None)).fields["year"] == 0
    assert reason(record(text=None)) == "'text' is missing"


def test_undeclared_data_is_named_and_not_stored() -> None:
    change = put(record(metadata={"a": 1}, url="http://x"))
    assert change.undeclared == ("metadata", "url")
    assert "url" not in change.fields


def test_a_byte_order_mark_and_a_carriage_return_do_no_harm() -> None:
    assert put(message(b"\xef\xbb\xbf" + json.dumps(GOOD).encode() + b"\r")).id == "a"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"", "not JSON: Expecting value at character 1; the line ends in the middle"),
        (
            b'{"_id": "a", "text": "x',
            "the line ends in the middle: was the file cut off, or is it still being written?",
        ),
        (b'{"_id": "a", "text"', "not JSON: Expecting ':' delimiter at character 20; the line ends in the middle"),
        (b'{"_id": a}', "not JSON: Expecting value at character 9"),
        (b'{"_id": "a"} {}', "not JSON: Extra data at character 14"),
        (b'{"_id": "caf\xe9"}', "not UTF-8: byte 0xe9 at 13"),
        ("{}".encode("utf-16"), "not UTF-8: byte 0xff at 1"),
        (b"[1, 2]", "expected a JSON object, got list"),
        (b"3", "expected a JSON object, got the int 3"),
        (b"null", "expected a JSON object, got null"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"_id": ' + b"9" * 5000 + b"}", "not JSON that can be read"),
        (b'{"_id": "a", "text": "x", "lang": "en", "weight": NaN}', "NaN is not JSON"),
        (b'{"_id": "a", "text": "x", "lang": "en", "weight": -Infinity}', "-Infinity is not JSON"),
        (b'{"_id": "a", "text": "x", "text": "y"}', "the key 'text' occurs twice"),
        (b'{"_id": "a", "text": "\\ud800", "lang": "en"}', "'text' holds half a character"),
        (b'{"_id": "\\udc00", "text": "x", "lang": "en"}', "'id' holds half a character"),
    ],
)
def test_what_is_no_record_is_refused(value: bytes, expected: str) -> None:
    assert expected in reason(message(value))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"_id": ""}, "the id is empty"),
        ({"_id": None}, "the id is missing: give '_id'"),
        ({"_id": True}, "the id must be a string (or an int), got the bool True"),
        ({"_id": 1.5}, "the id must be a string (or an int), got the float 1.5"),
        ({"_id": "é" * 257}, f"the id has 514 bytes; at most {MAX_ID_BYTES} are taken"),
        ({"id": "b"}, "more than one id: a, b"),
        ({"text": 3}, "'text' must be a string, got the int 3"),
        ({"title": ["x"]}, "'title' must be a string, got list"),
        ({"title": " ", "text": "\n"}, "title and text are both empty: there is nothing to encode"),
        ({"text": "é" * 40_000}, f"'text' has 80,000 bytes; at most {MAX_STRING_BYTES:,} can be stored"),
        ({"lang": "x" * 65_536}, "'lang' has 65,536 bytes"),
        ({"lang": None}, "the field 'lang' (string) is missing and has no default"),
        ({"year": 2020.0}, "the field 'year' must be of type int, got the float 2020.0"),
        ({"year": True}, "the field 'year' must be of type int, got the bool True"),
        ({"year": 2**63}, "the field 'year' must be of type int, got the int 9223372036854775808"),
        ({"weight": "1"}, "the field 'weight' must be of type float, got the string '1'"),
        ({"weight": 10**400}, "the field 'weight' must be of type float, got the int 1000"),
        ({"public": 1}, "the field 'public' must be of type bool, got the int 1"),
        ({"_version": 2**63}, "the version must be an int from 0 to 2**63 - 1, got the int 9223372036854775808"),
        ({"_version": -1}, "the version must be an int from 0 to 2**63 - 1, got the int -1"),
        ({"_version": "7"}, "the version must be an int from 0 to 2**63 - 1, got the string '7'"),
        ({"_deleted": "yes"}, "'_deleted' must be true or false, got the string 'yes'"),
        ({"_delete": True}, "unknown key '_delete': keys that begin with an underscore are _deleted, _id, _version"),
        ({"_verison": 8}, "unknown key '_verison'"),
    ],
)
def test_a_record_that_cannot_be_stored_is_refused(change: dict[str, Any], expected: str) -> None:
    assert expected in reason(record(**change))


def test_a_text_that_is_cut_may_be_longer_than_a_field_and_its_title_may_not() -> None:
    cut = Cut(64, 8, "sentence")
    long = decode(record(text="x" * MAX_TEXT_BYTES), COLLECTION, cut)
    assert isinstance(long, Put)
    assert long.cut == Cut.of_hash(long.hash) == cut
    for change, told in (
        ({"text": "é" * (MAX_TEXT_BYTES // 2 + 1)}, "at most 4,194,304 can be stored"),
        ({"title": "x" * (MAX_STRING_BYTES + 1)}, "at most 65,535 can be stored"),
    ):
        with pytest.raises(Reject) as refusal:
            decode(record(**change), COLLECTION, cut)
        assert told in refusal.value.reason


def test_a_message_that_its_source_could_not_read_is_refused_with_the_sources_words() -> None:
    assert reason(message(b"{", fault="the line has 17 bytes")) == "the line has 17 bytes"


def test_a_delete_without_a_key_is_refused() -> None:
    assert "deletes its key, but it has no key" in reason(message(None))


def test_the_hash_ignores_spelling_and_version_and_sees_every_value() -> None:
    original = put(record(weight=2))
    assert put(record(weight=2.0, _version=9, metadata=1)).hash == original.hash
    reordered = message(json.dumps(dict(reversed((GOOD | {"weight": 2}).items()))).encode())
    assert put(reordered).hash == original.hash
    others = [{"title": "U"}, {"text": "y"}, {"lang": "de"}, {"year": 1}, {"weight": 2.5}, {"public": False}]
    assert len({put(record(**({"weight": 2} | other))).hash for other in others} | {original.hash}) == 7
    assert put(record(title="T x", text="")).hash != put(record(title="T", text="x")).hash


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(alphabet=st.characters()),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)
_KEYS = st.sampled_from(["_id", "id", "title", "text", "lang", "year", "weight", "public", "_version", "_deleted"])


def outcome(any_message: Message) -> Change | str:
    try:
        return decode(any_message, COLLECTION)
    except Reject as error:
        return error.reason


@settings(deadline=None)
@given(st.binary(max_size=60) | _JSON.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_a_change_or_a_reason_that_can_be_written_down(value: bytes) -> None:
    result = outcome(message(value))
    assert not isinstance(result, str) or result.encode()


@settings(deadline=None)
@given(st.dictionaries(_KEYS | st.text(alphabet=st.characters(), max_size=5), _JSON, max_size=8))
def test_any_object_is_a_change_within_the_limits_or_a_reason(fields: dict[str, Any]) -> None:
    change = outcome(record(**fields))
    if isinstance(change, str):
        assert change.encode()
        return
    assert 0 < len(change.id.encode()) <= MAX_ID_BYTES
    assert 0 <= change.version < 2**63
    if isinstance(change, Put):
        assert set(change.fields) == {spec.name for spec in COLLECTION.fields}
        assert all(len(name) <= 61 for name in change.undeclared)
        assert "".join(change.undeclared).encode() is not None
        json.dumps(dict(change.fields), allow_nan=False).encode()


def test_many_keys_are_read_in_linear_time_with_one_of_them_twice_or_too_many() -> None:
    """A line of 0.4 MB took 28 s."""
    begun = time.process_time()
    for count, told in ((9_999, "the key 'k9998' occurs twice"), (60_000, "an object of 60,001 keys; at most 10,000")):
        pairs = ", ".join(f'"k{number}": 0' for number in range(count))
        assert told in reason(message(f'{{{pairs}, "k{count - 1}": 0}}'.encode()))
        assert told in reason(message(f'{{"_id": "a", "text": "x", "more": {{{pairs}, "k{count - 1}": 0}}}}'.encode()))
    assert time.process_time() - begun < 2
