"""Tokens: prefixes, cuts and special tokens by the spec; the identity of a tokenizer."""

import copy
import json
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from bartizan_connector.base.errors import NotAText, Retry, SpaceMismatch, Stop, WrongUse
from bartizan_connector.space.spec import Role, RoleSpec, TowerSpec
from bartizan_connector.space.tokens import TOKENIZER_FILE, Tokens, tokenizer_hash
from tests.encoders.tiny import bytes_tokenizer, words_tokenizer

WORDS = words_tokenizer()
ROLES: dict[Role, RoleSpec] = {
    "query": RoleSpec(prefix="ask: ", max_tokens=8),
    "document": RoleSpec(max_tokens=16),
}


def _spec(text: str, **facts: Any) -> TowerSpec:
    return TowerSpec(
        name="t", dim=4, pooling="mean", roles=ROLES, tokenizer_hash=tokenizer_hash(text),
        architecture_hash="0" * 64, weights_hash="0" * 64, **facts,
    )  # fmt: skip


def _ids(text: str) -> list[int]:
    tokenizer = Tokenizer.from_str(WORDS)
    return list(tokenizer.encode(text).ids)


def test_each_role_has_its_own_prefix() -> None:
    tokens = Tokens(WORDS, roles=ROLES)
    assert tokens.encode(["one"], "query")[0].ids == _ids("ask: one")
    assert tokens.encode(["one"], "document")[0].ids == _ids("one")


@given(st.text(max_size=60))
@settings(max_examples=60, deadline=None)
def test_a_cut_text_keeps_its_start_and_both_special_tokens(text: str) -> None:
    whole = _ids(text)
    (got,) = Tokens(WORDS, roles=ROLES).encode([text], "document")
    assert got.length == len(whole)
    assert got.truncated == (len(whole) > 16)
    assert got.ids == (whole if len(whole) <= 16 else [*whole[:15], whole[-1]])


@given(st.lists(st.text(max_size=40), max_size=6))
@settings(max_examples=40, deadline=None)
def test_a_text_is_read_the_same_in_every_batch(texts: list[str]) -> None:
    tokens = Tokens(WORDS, roles=ROLES)
    assert tokens.encode(texts, "query") == [tokens.encode([text], "query")[0] for text in texts]


def test_a_deadline_ends_the_reading_of_many_texts() -> None:
    tokens, texts = Tokens(WORDS, roles=ROLES), ["one two three"] * 5_000
    (one,) = tokens.encode(["one two three"], "document")

    def seconds(many: int, timeout: float) -> float:
        begun = time.monotonic()
        with nullcontext() if timeout > 60 else pytest.raises(Retry):
            assert tokens.encode(texts * many, "document", deadline=begun + timeout) == [one] * len(texts) * many
        return time.monotonic() - begun

    whole = min(seconds(1, 600.0) for _ in range(3))
    assert min(seconds(4, whole / 2) for _ in range(5)) < 3 * whole, "all were read before it looked at the clock"


def test_a_text_that_is_none_is_named_by_its_place_among_all() -> None:
    with pytest.raises(NotAText, match="text 2500 is not valid Unicode"):
        Tokens(WORDS, roles=ROLES).encode([*["one"] * 2_500, "\ud800"], "document")


def test_without_special_tokens_there_are_bare_pieces_and_an_empty_text_is_one_padding_token() -> None:
    tokens = Tokens(WORDS, roles={"document": RoleSpec(max_tokens=4)}, special_tokens="none")
    assert tokens.encode(["the tower"], "document")[0].ids == _ids("the tower")[1:-1]
    (empty,) = tokens.encode([""], "document")
    assert (empty.ids, empty.length, empty.truncated) == ([0], 0, False)


def test_a_role_without_a_spec_is_refused() -> None:
    tokens = Tokens(WORDS, roles={"query": RoleSpec(max_tokens=8)})
    with pytest.raises(WrongUse, match="query only, but was asked for document"):
        tokens.encode(["x"], "document")


def test_a_limit_that_special_tokens_fill_is_refused() -> None:
    with pytest.raises(WrongUse, match="leaves no room"):
        Tokens(WORDS, roles={"query": RoleSpec(max_tokens=2)})


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (b"bytes", "is of type bytes"),
        (None, "is of type NoneType"),
        (("a", "pair"), "is of type tuple"),
        ("half \ud800", "is not valid Unicode"),
    ],
)
@pytest.mark.parametrize("role", ["query", "document"])
def test_what_is_not_text_is_refused_by_its_position(role: Role, bad: Any, why: str) -> None:
    with pytest.raises(WrongUse, match=f"text 1 {why}"):
        Tokens(WORDS, roles=ROLES).encode(["fine", bad], role)


def test_one_text_in_place_of_a_list_is_refused() -> None:
    with pytest.raises(WrongUse, match="expected a list of texts"):
        Tokens(WORDS, roles=ROLES).encode("letters", "query")


def test_the_hash_does_not_see_layout_key_order_truncation_or_padding() -> None:
    facts = json.loads(WORDS)
    reversed_order = {key: facts[key] for key in reversed(facts)}
    reversed_order["truncation"] = {"max_length": 3, "strategy": "LongestFirst", "stride": 0, "direction": "Right"}
    reversed_order["padding"] = {"strategy": {"Fixed": 7}, "direction": "Left", "pad_to_multiple_of": None, "pad_id": 3,
                                 "pad_type_id": 0, "pad_token": "[SEP]"}  # fmt: skip
    other = json.dumps(reversed_order, indent=3, ensure_ascii=True)
    assert tokenizer_hash(other) == tokenizer_hash(WORDS)
    one, two = (Tokens(text, roles=ROLES).encode(["the tower"], "query") for text in (other, WORDS))
    assert one == two


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths to every leaf of a JSON value."""
    if isinstance(value, dict):
        return [place for key, part in value.items() for place in _places(part, (*path, key))]
    if isinstance(value, list):
        return [place for key, part in enumerate(value) for place in _places(part, (*path, key))]
    return [path]


FACTS = json.loads(bytes_tokenizer())
LEAVES = [place for place in _places(FACTS) if place[0] not in ("truncation", "padding")]


@given(st.sampled_from(LEAVES), st.sampled_from([None, "changed", 12345, True, [1]]))
@settings(max_examples=100, deadline=None)
def test_the_hash_sees_a_change_of_any_other_fact(place: tuple[Any, ...], value: Any) -> None:
    changed = copy.deepcopy(FACTS)
    parent = changed
    for key in place[:-1]:
        parent = parent[key]
    unchanged = parent[place[-1]] == value and type(parent[place[-1]]) is type(value)
    parent[place[-1]] = value
    assert (tokenizer_hash(json.dumps(changed)) == tokenizer_hash(json.dumps(FACTS))) == unchanged


def test_another_tokenizer_beside_a_spec_is_refused(tmp_path: Path) -> None:
    (tmp_path / TOKENIZER_FILE).write_text(bytes_tokenizer())
    with pytest.raises(SpaceMismatch, match="not the tokenizer that tower 't' was made with") as caught:
        Tokens.read(tmp_path, _spec(WORDS))
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b'{"version": NaN}', b'{"version": "1.0"}'])
def test_a_damaged_tokenizer_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / TOKENIZER_FILE).write_bytes(content)
    with pytest.raises(Stop, match=r"damaged|cannot be read"):
        Tokens.read(tmp_path, _spec(WORDS))


def test_a_missing_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Stop, match=r"has no tokenizer\.json"):
        Tokens.read(tmp_path, _spec(WORDS))


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    Tokens(WORDS, roles=ROLES).write(tmp_path)
    read = Tokens.read(tmp_path, _spec(WORDS))
    assert read.encode(["the tower"], "document") == Tokens(WORDS, roles=ROLES).encode(["the tower"], "document")
