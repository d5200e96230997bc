"""What a re-embedding will cost: measured on a sample with the new towers, and multiplied."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice

import numpy as np

from bartizan_connector.encode.encoder import Encoder
from bartizan_connector.store.backend import Store
from bartizan_connector.store.collection import Collection, Document, Scalar
from bartizan_connector.stream.records import text_of
from bartizan_connector.stream.reembed.stored import whole_text

SAMPLE = 256
_AMONG = 20_000
_GRAPH_BYTES = 2 * 16 * 4
"""Of each vector in an HNSW graph of M = 16, beside the vector itself."""
_TERM_BYTES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class LegCost:
    """One leg as the sample says."""

    seconds: float
    """To encode every document."""
    tokens: int
    """Of every document, as far as the tower reads."""
    truncated: float
    """Share of the documents that are longer than it reads."""
    storage_bytes: int
    """The vectors of every document."""
    index_bytes: int
    """Memory of an index over them: all vectors, and a graph where they are dense."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """The whole collection."""

    documents: int
    sampled: int
    text_bytes: int
    """What is stored beside the vectors, once more."""
    legs: Mapping[str, LegCost]

    @property
    def seconds(self) -> float:
        """With one encoder, as it ran here."""
        return sum(leg.seconds for leg in self.legs.values())

    @property
    def tokens(self) -> int:
        """Of every leg's tower."""
        return sum(leg.tokens for leg in self.legs.values())


def estimate(store: Store, encoders: Mapping[str, Encoder], wanted: Collection, *, sample: int = SAMPLE) -> Estimate:
    """Encode a sample of what is stored. Nothing is written."""
    documents = store.count()
    chosen = _spread(store, sample)
    texts = [_text(whole_text(document)) for document in chosen]
    own = sum(len(str(value).encode()) for document in chosen for value in whole_text(document).values())
    legs = {leg.name: _leg(encoders[leg.name], texts, documents) for leg in wanted.legs} if texts else {}
    return Estimate(
        documents=documents,
        sampled=len(chosen),
        text_bytes=round(own / len(chosen) * documents) if chosen else 0,
        legs=legs,
    )


def _leg(encoder: Encoder, texts: list[str], documents: int) -> LegCost:
    encoder.encode(texts[:8], "document")  # what is loaded at the first call is paid once
    began = time.perf_counter()
    vectors = encoder.encode(texts, "document")
    seconds = time.perf_counter() - began
    share = documents / len(texts)
    most = encoder.spec.role("document").max_tokens
    dense = isinstance(vectors.values, np.ndarray)
    bytes_each = (
        encoder.spec.dim * 4
        if dense
        else float(np.mean([len(vector.indices) for vector in vectors.values])) * _TERM_BYTES
    )
    return LegCost(
        seconds=seconds * share,
        tokens=round(sum(min(count, most) for count in vectors.tokens) * share),
        truncated=float(np.mean(vectors.truncated)),
        storage_bytes=round(bytes_each * documents),
        index_bytes=round((bytes_each + (_GRAPH_BYTES if dense else 0)) * documents),
    )


def _spread(store: Store, sample: int) -> list[Document]:
    """Documents at equal distances among the first of a scan."""
    count = min(store.count(), _AMONG)
    stride = max(1, count // max(1, sample))
    return list(islice((each for number, each in enumerate(store.scan()) if number % stride == 0), sample))


def _text(fields: Mapping[str, Scalar]) -> str:
    return text_of(str(fields.get("title", "")), str(fields.get("text", "")))
