"""Cutting: the chunks of a text are the text, each fits every tower, and they are cut where a sentence ends."""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

from bartizan_connector.base.errors import WrongUse
from bartizan_connector.config import Config
from bartizan_connector.config.settings import ChunkSettings
from bartizan_connector.space.spec import RoleSpec, TowerSpec
from bartizan_connector.space.tokens import Tokens
from bartizan_connector.store.collection import MAX_STRING_BYTES
from bartizan_connector.stream.chunks import Cutter, Piece
from bartizan_connector.stream.records import Cut, Put
from bartizan_connector.stream.sentences import sentence_starts
from tests.connector.stream.reading import WordReading
from tests.exports import export_folder

TEXT = "One two three. Four five six seven. Eight nine. Ten eleven twelve thirteen fourteen fifteen. Sixteen."


def cut(text: str, title: str = "", *, towers: Mapping[str, Any] | None = None, **given: Any) -> Sequence[Piece]:
    cutter = Cutter(towers or {"dense": WordReading()}, ChunkSettings(**{"tokens": 8} | given))
    return cutter.pieces([Put(id="a", title=title, text=text, version=1, cut=cutter.cut)])[0]


def test_a_text_is_cut_at_the_ends_of_sentences_as_late_as_there_is_room() -> None:
    assert [piece.text for piece in cut(TEXT)] == [
        "One two three. Four five six seven. ",
        "Eight nine. Ten eleven twelve thirteen fourteen fifteen. ",
        "Sixteen.",
    ]


def test_a_sentence_that_is_too_long_is_cut_between_words_and_a_word_between_tokens() -> None:
    letters = {"dense": WordReading(pattern=r"\S")}
    assert [piece.text for piece in cut("abcde fghijk lmnopqrstuvwxyz end", towers=letters)] == [
        "abcde ", "fghijk ", "lmnopqrs", "tuvwxyz ", "end",
    ]  # fmt: skip
    assert [piece.text for piece in cut("abcde fghijk lm", towers=letters, at="token")] == ["abcde fgh", "ijk lm"]


def test_the_title_is_read_with_every_chunk_and_takes_of_its_room() -> None:
    pieces = cut(TEXT, "A title of five words")
    assert all(piece.encoded == f"A title of {piece.text}".strip() or "title" in piece.encoded for piece in pieces)
    assert "".join(piece.text for piece in pieces) == TEXT
    assert max(len(piece.encoded.split()) for piece in pieces) <= 8
    assert pieces[0].encoded == "A title of five One two three.", "a title takes at most half"


def test_a_title_without_a_text_has_all_the_room() -> None:
    (piece,) = cut("", "a title of quite a few words that go on")
    assert (piece.text, piece.encoded, piece.shortened) == ("", "a title of quite a few words that", True)


def test_what_a_chunk_overlaps_with_is_read_and_not_stored_and_begins_with_a_sentence_where_one_does() -> None:
    pieces = cut(TEXT, overlap=3)
    assert "".join(piece.text for piece in pieces) == TEXT
    assert pieces[1].encoded.startswith("five six seven. "), "no sentence begins within three words"
    assert pieces[2].encoded.endswith(pieces[2].text.strip())
    assert cut(TEXT, overlap=4)[1].encoded.startswith("Four five six seven. Eight nine.")
    tokens = cut("a b c d e f g h i j k", overlap=2, at="token")
    assert [(piece.text, piece.encoded) for piece in tokens] == [
        ("a b c d e f g h ", "a b c d e f g h"), ("i j k", "g h i j k"),
    ]  # fmt: skip


def test_what_fits_is_its_only_chunk_as_it_would_be_without_settings() -> None:
    put = Put(id="a", title="t", text="short text", version=1)
    assert cut("short text", "t") == (Piece("short text", "t short text"),) == Cutter({}, None).pieces([put])[0]


def test_the_tower_that_reads_least_cuts_and_every_tower_reads_every_chunk() -> None:
    towers = {"wide": WordReading(40, pattern=r"\S"), "narrow": WordReading(10)}
    pieces = cut(TEXT, "ti", towers=towers, tokens=None)
    assert "".join(piece.text for piece in pieces) == TEXT
    for tower in towers.values():
        assert max(tower.lengths([piece.encoded for piece in pieces])) <= tower.room
    assert Cutter(towers, ChunkSettings()).cut == Cut(10, 0, "sentence")


def test_settings_that_do_not_fit_the_tower_are_refused() -> None:
    towers = {"dense": WordReading(room=20)}
    with pytest.raises(WrongUse, match=r"tokens = 21.*leg 'dense' reads 20 tokens"):
        _ = Cutter(towers, ChunkSettings(tokens=21)).cut
    with pytest.raises(WrongUse, match="overlap = 11 is more than half of the 20 tokens"):
        _ = Cutter(towers, ChunkSettings(overlap=11)).cut


def test_the_hash_tells_how_a_content_was_cut_and_without_a_cut_is_what_it_was() -> None:
    bare = Put(id="a", text="x", version=1).hash
    assert Cut.of_hash(bare) is None
    for how in (Cut(8, 0, "sentence"), Cut(100_000, 99, "token")):
        hash = Put(id="a", text="x", version=1, cut=how).hash
        assert hash.startswith(bare)
        assert Cut.of_hash(hash) == how
    assert Cut.of_hash("h") is Cut.of_hash("") is Cut.of_hash(f"{bare}.8.0.word") is None


words = st.sampled_from(
    [
        "a",
        "Bee",
        "c.",
        "Dee!",
        "\n",
        "\n\n",
        " ",
        "。",
        "漢字。",
        "é",
        "e\u0301",
        "👩‍🚀",
        "Mr.",
        "x" * 30,
        "\u2028",
        "़",
        "1.5",
    ]
)
texts = st.lists(words, max_size=60).map(" ".join) | st.lists(words, max_size=60).map("".join) | st.text(max_size=80)


@pytest.mark.packaging
@given(
    text=texts,
    title=st.lists(words, max_size=8).map(" ".join),
    tokens=st.integers(8, 20),
    overlap=st.integers(0, 4),
    at=st.sampled_from(["sentence", "token"]),
    pattern=st.sampled_from([r"\S+", r"\S", r"\w+|[^\w\s]", r"(?s)."]),
)
@settings(max_examples=300, deadline=None)
@example(text="", title="only a title", tokens=8, overlap=0, at="sentence", pattern=r"\S+")
@example(text=" " * 100, title="t", tokens=8, overlap=4, at="token", pattern=r"(?s).")
def test_nothing_is_lost_and_nothing_is_too_long(
    text: str, title: str, tokens: int, overlap: int, at: str, pattern: str
) -> None:
    tower = WordReading(20, pattern)
    pieces = cut(text, title, towers={"dense": tower}, tokens=tokens, overlap=overlap, at=at)
    assert "".join(piece.text for piece in pieces) == text
    assert all(piece.text for piece in pieces) or len(pieces) == 1
    assert max(tower.lengths([piece.encoded for piece in pieces])) <= tokens
    assert all(piece.text.strip() in piece.encoded for piece in pieces)


@given(st.lists(st.integers(1, 6), min_size=1, max_size=12))
def test_sentences_that_fit_are_never_cut(lengths: list[int]) -> None:
    text = "".join(" ".join(["Word"] * length) + ". " for length in lengths)
    starts = {0, *sentence_starts(text)}
    at = 0
    for piece in cut(text):
        assert at in starts
        at += len(piece.text)


def test_a_chunk_fits_the_store_even_where_a_tower_makes_one_token_of_it() -> None:
    text = "é" * MAX_STRING_BYTES + " end."
    pieces = cut(text)
    assert "".join(piece.text for piece in pieces) == text
    assert max(len(piece.text.encode()) for piece in pieces) <= MAX_STRING_BYTES


@functools.cache
def trained(kind: str) -> Tokens:
    """A tokenizer of that kind, of the few pieces that a text of its own gives; one that adds a token in front, one
    whose tokens are bytes, one whose prefix is one with the text, one that takes texts for others."""
    model, trainer = {
        "metaspace": (models.BPE(unk_token="<unk>"), trainers.BpeTrainer(special_tokens=["<unk>"], vocab_size=80)),
        "bytes": (
            models.BPE(),
            trainers.BpeTrainer(initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), vocab_size=300),
        ),
        "unigram": (
            models.Unigram(),
            trainers.UnigramTrainer(unk_token="<unk>", special_tokens=["<unk>"], vocab_size=60),
        ),
    }[kind]
    tokenizer = Tokenizer(model)
    if kind == "bytes":
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    else:
        tokenizer.normalizer = normalizers.NFKC()
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.train_from_iterator([TEXT] * 3, trainer)
    role = RoleSpec(prefix="passage: ", max_tokens=48)
    return Tokens(tokenizer.to_str(), roles={"document": role}, special_tokens="none")


class OfTokens:
    """How a tower of that tokenizer reads."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens
        self.room = tokens.room("document")
        self.spans = tokens.spans

    def lengths(self, texts: Sequence[str]) -> list[int]:
        return self._tokens.lengths(texts, "document")


@pytest.mark.parametrize("kind", ["metaspace", "bytes", "unigram"])
@given(text=texts, title=st.lists(words, max_size=8).map(" ".join), overlap=st.integers(0, 8))
@settings(max_examples=40, deadline=None)
@example(text="ﷺ﷽① " * 20 + TEXT, title="½", overlap=3)
@example(text="漢字" * 100, title="", overlap=0)
def test_every_kind_of_tokenizer_loses_nothing_and_reads_all(kind: str, text: str, title: str, overlap: int) -> None:
    tokens = trained(kind)
    pieces = cut(text, title, towers={"dense": OfTokens(tokens)}, tokens=None, overlap=overlap)
    assert "".join(piece.text for piece in pieces) == text
    assert not any(each.truncated for each in tokens.encode([piece.encoded for piece in pieces], "document"))


def test_a_real_tokenizer_cuts_and_its_tower_reads_all(tmp_path: Path) -> None:
    folder = export_folder("bert", "fp32")
    spec = TowerSpec.read(folder)
    tokens = Tokens.read(folder, spec)
    (tmp_path / "bartizan.toml").write_text(
        f'collection.name = "docs"\nspaces.dense.document_tower = "{folder}"\nchunks = {{ overlap = 4 }}\n'
    )
    cutter = Cutter.of(Config.load(tmp_path / "bartizan.toml"))
    assert cutter.cut == Cut(tokens.room("document"), 4, "sentence")
    text = (TEXT + " Ünïcödé wörds, 漢字。 " + "unbreakable" * 30 + "\n\n") * 5
    (pieces,) = cutter.pieces([Put(id="a", title="The title", text=text, version=1, cut=cutter.cut)])
    assert len(pieces) > 3
    assert "".join(piece.text for piece in pieces) == text
    assert not any(each.truncated for each in tokens.encode([piece.encoded for piece in pieces], "document"))
