"""Tokens in files are the tokens in memory, take two bytes where they can, and are written in little memory."""

import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from bartizan_connector.base.errors import Stop
from bartizan_connector.space.spec import RoleSpec
from bartizan_connector.space.tokens import Tokens
from bartizan_training.data import token_table
from bartizan_training.data.token_table import StoredTokens, TokenTable, made_from, write_tokens
from tests.training import toy


def tokens(vocabulary: int = 0, **roles: RoleSpec) -> Tokens:
    text = toy.tokenizer()
    if vocabulary:
        words = {f"thing{i}": i for i in range(vocabulary)}
        made = Tokenizer(models.WordLevel(words, unk_token="thing0"))
        made.pre_tokenizer = pre_tokenizers.Whitespace()
        text = str(made.to_str())
    return Tokens(text, roles=roles or {"document": RoleSpec(max_tokens=24)})  # type: ignore[arg-type]


@settings(max_examples=20)
@given(lengths=st.lists(st.integers(0, 30), max_size=30), seed=st.integers(0, 99))
def test_files_give_what_memory_gives(tmp_path_factory: pytest.TempPathFactory, lengths: list[int], seed: int) -> None:
    random = np.random.default_rng(seed)
    texts = [" ".join(f"thing{i}" for i in random.integers(toy.THINGS, size=length)) for length in lengths]
    folder = tmp_path_factory.mktemp("table")
    write_tokens(folder, tokens(), "document", iter(texts))
    memory, files = TokenTable(tokens(), "document", texts), StoredTokens(folder)
    assert len(files) == len(memory) == len(texts)
    assert files.tokens == memory.tokens
    picked = random.permutation(len(texts))[: len(texts) // 2]
    assert [ids.tolist() for ids in files.pick(picked)] == [ids.tolist() for ids in memory.pick(picked)]
    assert [ids.tolist() for ids in memory.pick(picked)] == [
        tokens().encode([texts[i]], "document")[0].ids for i in picked
    ]


@pytest.mark.parametrize(("vocabulary", "width"), [(1 << 16, 2), ((1 << 16) + 1, 4)])
def test_a_token_takes_two_bytes_where_the_vocabulary_allows(tmp_path: Path, vocabulary: int, width: int) -> None:
    last = vocabulary - 1
    write_tokens(tmp_path, tokens(vocabulary), "document", [f"thing{last} thing7"])
    assert np.load(tmp_path / "tokens.npy").itemsize == width
    (ids,) = StoredTokens(tmp_path).pick(np.array([0]))
    assert ids.tolist() == [last, 7]
    assert ids.dtype == np.int32


def test_writing_takes_as_much_memory_for_many_texts_as_for_few(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_table, "_BLOCK", 256)

    def texts(count: int) -> Iterator[str]:
        return (f"thing{i % 40} thing{i % 7} thing{i % 31} thing{i % 11} thing{i % 3}" for i in range(count))

    peaks = []
    for count in (1_024, 8_192):
        (tmp_path / str(count)).mkdir()
        tracemalloc.start()
        write_tokens(tmp_path / str(count), tokens(), "document", texts(count))
        table = StoredTokens(tmp_path / str(count))
        table.pick(np.arange(0, count, count // 64))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0]
    assert isinstance(np.load(tmp_path / "8192/tokens.npy", mmap_mode="r"), np.memmap)


def test_all_that_changes_a_token_changes_what_a_table_is_made_from() -> None:
    base = made_from(tokens(), "document", ["a", "b"])
    others = [
        made_from(tokens(), "document", ["ab"]),
        made_from(tokens(), "document", ["b", "a"]),
        made_from(tokens(vocabulary=9), "document", ["a", "b"]),
        made_from(tokens(document=RoleSpec(max_tokens=23)), "document", ["a", "b"]),
        made_from(tokens(document=RoleSpec(max_tokens=24, prefix="x ")), "document", ["a", "b"]),
        made_from(tokens(query=RoleSpec(max_tokens=24)), "query", ["a", "b"]),
    ]
    assert all(other != base for other in others)
    assert made_from(tokens(), "document", iter(["a", "b"])) == base


def test_files_that_are_damaged_are_told(tmp_path: Path) -> None:
    write_tokens(tmp_path, tokens(), "document", ["thing1"])
    (tmp_path / "starts.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(Stop, match=r"the tokens in .* cannot be read: .*; train again into another --out"):
        StoredTokens(tmp_path)
