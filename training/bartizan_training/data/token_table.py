"""Texts tokenised once: in memory, or in files that all processes of a machine share.

A folder holds `tokens.npy`, the ids of one text after the other, two bytes each where the vocabulary allows it, and
`starts.npy`, where each text begins. Both are mapped into memory, not read: what many processes look at lies in memory
once, and may leave it. They are written as the texts come, some thousand at a time.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bartizan_connector.base.errors import Stop
from bartizan_connector.space.spec import Role
from bartizan_connector.space.tokens import Tokens
from bartizan_training.data.packing import TokenIds
from bartizan_training.data.ragged import Indices, joined_ranges

_TOKENS, _STARTS = "tokens.npy", "starts.npy"
_BLOCK = 4096
_SHORT = 1 << 16

Stored = npt.NDArray[np.unsignedinteger[Any]]


class TokenTable:
    """The token ids of many texts, in memory."""

    def __init__(self, tokens: Tokens, role: Role, texts: Iterable[str]) -> None:
        ids, lengths = [np.zeros(0, dtype=_width(tokens))], [np.zeros(1, dtype=np.int64)]
        for some, of_each in _tokenised(tokens, role, texts):
            ids.append(some)
            lengths.append(of_each)
        self._ids: Stored = np.concatenate(ids)
        self._starts: Indices = np.cumsum(np.concatenate(lengths))

    def __len__(self) -> int:
        return len(self._starts) - 1

    @property
    def tokens(self) -> int:
        """Of all texts."""
        return len(self._ids)

    def pick(self, indices: Indices) -> TokenIds:
        """The texts of these numbers."""
        starts = self._starts[indices]
        lengths = self._starts[indices + 1] - starts
        return TokenIds(self._ids[joined_ranges(starts, lengths)].astype(np.int32), lengths)


Tabling = Callable[[Tokens, Role, Sequence[str]], TokenTable]
"""Makes a table: in memory, or in files."""


class StoredTokens(TokenTable):
    """The same in the files of a folder."""

    def __init__(self, folder: Path) -> None:
        try:
            self._ids, self._starts = (np.load(folder / name, mmap_mode="r") for name in (_TOKENS, _STARTS))
        except (OSError, ValueError) as error:
            raise Stop(f"the tokens in {folder} cannot be read: {error}; train again into another --out") from error


def write_tokens(folder: Path, tokens: Tokens, role: Role, texts: Iterable[str]) -> None:
    """Save into the folder what `StoredTokens` reads, as the texts come."""
    with _Growing(folder / _TOKENS, _width(tokens)) as ids, _Growing(folder / _STARTS, np.dtype(np.int64)) as starts:
        end = np.zeros(1, dtype=np.int64)
        starts.add(end)
        for some, lengths in _tokenised(tokens, role, texts):
            ids.add(some)
            ends = end + np.cumsum(lengths)
            starts.add(ends)
            end = ends[-1:]


def made_from(tokens: Tokens, role: Role, texts: Iterable[str]) -> Mapping[str, Any]:
    """What a table depends on."""
    special = "template" if tokens.adds_special else "none"
    facts = {"tokenizer": tokens.hash, "special_tokens": special, "role": role, "texts": identity_of(texts)}
    return facts | tokens.roles[role].model_dump()


def identity_of(texts: Iterable[str]) -> str:
    """A hash of the texts in their order."""
    digest = hashlib.sha256()
    for text in texts:
        encoded = text.encode()
        digest.update(len(encoded).to_bytes(8, "little") + encoded)
    return digest.hexdigest()


def _width(tokens: Tokens) -> np.dtype[np.unsignedinteger[Any]]:
    return np.dtype(np.uint16 if tokens.vocabulary <= _SHORT else np.uint32)


def _tokenised(tokens: Tokens, role: Role, texts: Iterable[str]) -> Iterator[tuple[Stored, Indices]]:
    """The ids of some texts, and how many are of each."""
    coming = iter(texts)
    while block := list(islice(coming, _BLOCK)):
        found = [text.ids for text in tokens.encode(block, role)]
        lengths = np.array([len(ids) for ids in found], dtype=np.int64)
        yield np.fromiter(chain.from_iterable(found), dtype=_width(tokens), count=int(lengths.sum())), lengths


class _Growing:
    """A file of numpy's own format for one array whose length is known at the end."""

    _HEADER = 128
    """Bytes: more than the header of any length takes."""

    def __init__(self, path: Path, dtype: np.dtype[Any]) -> None:
        self._path, self._dtype, self._length = path, dtype, 0

    def __enter__(self) -> "_Growing":
        self._file = self._path.open("wb")
        self._file.write(b"\0" * self._HEADER)
        return self

    def add(self, values: npt.NDArray[Any]) -> None:
        """Put them behind the others."""
        values.astype(self._dtype, copy=False).tofile(self._file)
        self._length += len(values)

    def __exit__(self, *_: object) -> None:
        facts = f"{{'descr': '{self._dtype.str}', 'fortran_order': False, 'shape': ({self._length},), }}"
        self._file.seek(0)
        size = self._HEADER - 10
        self._file.write(b"\x93NUMPY\x01\x00" + size.to_bytes(2, "little") + facts.ljust(size - 1).encode() + b"\n")
        self._file.close()
