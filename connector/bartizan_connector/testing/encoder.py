"""EncoderSuite: what every encoder must do; subclass it, give an encoder, inherit the tests.

    class TestMyEncoder(EncoderSuite):
        def make(self) -> Encoder:
            return MyEncoder(...)

        def opener(self) -> Opener:  # where an encoder is opened from the folder of a tower
            return MyEncoder.open, folder

A known gap is the inherited test overridden with `@pytest.mark.xfail(strict=True, reason=…)`.
"""

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from bartizan_connector.base.errors import Retry, WrongUse
from bartizan_connector.encode.encoder import Encoder
from bartizan_connector.space.spec import Role
from bartizan_connector.space.vectors import Floats, Vectors

TEXTS = (
    "how do i reset my password",
    "Mutations in the BRCA1 gene raise the risk of cancer.",
    "?",
    "The tide gauge at the harbour recorded a level above the forecast, and the lower quay was closed until noon.",
    "東京の天気 🙂 Ünïcödé a\u0301\u200d كم",
    "",
    "def mean(values):\n\treturn sum(values) / len(values)",
)


Opener = tuple[Callable[[str | Path], Encoder], Path]
"""How an encoder is opened from a folder, and such a folder."""


class EncoderSuite(ABC):
    """The conformance tests of the seam Encoder; dense or sparse, as the encoder's spec says."""

    tolerance = 1e-5
    """How far a component of a unit vector, or a weight of a sparse one, may move with the batch: only rounding depends
    on it."""

    @abstractmethod
    def make(self) -> Encoder:
        """An open encoder; the suite closes it."""

    def opener(self) -> Opener | None:
        """How it is opened from a folder; None where it is made in another way."""
        return None

    @pytest.fixture
    def encoder(self) -> Iterator[Encoder]:
        encoder = self.make()
        yield encoder
        encoder.close()

    @pytest.fixture
    def role(self, encoder: Encoder) -> Role:
        """A role that this tower can play."""
        return next(iter(encoder.spec.roles))

    def test_a_batch_says_which_space_and_which_tower_it_is_from(self, encoder: Encoder, role: Role) -> None:
        vectors = encoder.encode(TEXTS, role)
        assert (vectors.space_id, vectors.tower_id) == (encoder.spec.space_id, encoder.spec.tower_id)

    def test_every_text_gives_one_finite_vector_of_the_promised_length(self, encoder: Encoder, role: Role) -> None:
        values = _values(encoder, TEXTS, role)
        assert values.shape == (len(TEXTS), encoder.spec.dim)
        assert np.all(np.isfinite(values))
        if encoder.spec.normalise:
            np.testing.assert_allclose(np.linalg.norm(values, axis=1), 1.0, atol=1e-5)

    def test_different_texts_give_different_vectors(self, encoder: Encoder, role: Role) -> None:
        values = _values(encoder, TEXTS, role)
        if encoder.spec.kind == "sparse":  # a text in which it finds no term has an empty vector
            values = values[values.any(axis=1)]
            assert len(values) >= len(TEXTS) // 2
        distances = np.abs(values[:, None] - values[None]).max(axis=-1) + np.eye(len(values))
        assert distances.min() > 100 * self.tolerance

    def test_order_is_kept(self, encoder: Encoder, role: Role) -> None:
        alone = np.concatenate([_values(encoder, [text], role) for text in TEXTS])
        self._same(alone, _values(encoder, TEXTS, role))
        self._same(alone[::-1], _values(encoder, TEXTS[::-1], role))
        vectors = encoder.encode(TEXTS[::-1], role)
        assert vectors.tokens[::-1] == encoder.encode(TEXTS, role).tokens

    def test_a_text_gives_the_same_vector_alone_and_in_any_company(self, encoder: Encoder, role: Role) -> None:
        alone = np.concatenate([_values(encoder, [text], role) for text in TEXTS])
        self._same(alone, _values(encoder, TEXTS, role))
        self._same(alone, _values(encoder, TEXTS * 40, role)[: len(TEXTS)])
        long = " ".join(["tower"] * encoder.spec.roles[role].max_tokens)
        self._same(alone, _values(encoder, [*TEXTS, long], role)[:-1])

    def test_nothing_gives_nothing(self, encoder: Encoder, role: Role) -> None:
        vectors = encoder.encode([], role)
        assert len(vectors) == 0
        assert _matrix(vectors, encoder).shape == (0, encoder.spec.dim)

    def test_a_long_text_is_cut_on_the_right_and_counted(self, encoder: Encoder, role: Role) -> None:
        most = encoder.spec.roles[role].max_tokens
        start = "tower " * most
        vectors = encoder.encode(["short", start + "one", start + "two two two"], role)
        assert vectors.truncated == (False, True, True)
        assert vectors.tokens[0] <= most < vectors.tokens[1] < vectors.tokens[2]
        values = _matrix(vectors, encoder)
        self._same(values[1], values[2])

    def test_a_role_that_the_tower_cannot_play_is_refused(self, encoder: Encoder) -> None:
        strangers = {"query", "document", "narrator"} - set(encoder.spec.roles)
        for stranger in strangers:
            with pytest.raises(WrongUse, match=stranger):
                encoder.encode(["text"], cast(Role, stranger))

    def test_a_text_that_is_not_unicode_is_refused_by_its_position(self, encoder: Encoder, role: Role) -> None:
        with pytest.raises(WrongUse, match="text 1"):
            encoder.encode(["fine", "half a pair \ud83d", "fine"], role)

    def test_a_deadline_that_has_passed_raises_retry(self, encoder: Encoder, role: Role) -> None:
        with pytest.raises(Retry):
            encoder.encode(TEXTS * 200, role, timeout=1e-6)
        with pytest.raises(Retry):
            asyncio.run(encoder.aencode(TEXTS * 200, role, timeout=1e-6))

    def test_a_deadline_ends_the_work(self, encoder: Encoder, role: Role) -> None:
        def seconds(many: int, timeout: float | None = None) -> float:
            begun = time.monotonic()
            with nullcontext() if timeout is None else pytest.raises(Retry):
                encoder.encode(TEXTS * many, role, timeout=timeout)
            return time.monotonic() - begun

        many = 10
        while (whole := min(seconds(many) for _ in range(3))) < 0.05:  # the machine may be busy
            many *= 2
        ended = (seconds(8 * many, whole / 2) for _ in range(5))
        assert any(each < 6 * whole for each in ended), "the texts were encoded to the end"

    def test_a_generous_deadline_changes_nothing(self, encoder: Encoder, role: Role) -> None:
        patient = encoder.encode(TEXTS * 20, role, timeout=600.0)
        self._same(_matrix(patient, encoder), _values(encoder, TEXTS * 20, role))

    def test_async_gives_the_same_and_leaves_the_loop_free(self, encoder: Encoder, role: Role) -> None:
        async def watched() -> Floats:
            task = asyncio.create_task(encoder.aencode(TEXTS, role))
            await asyncio.sleep(0)
            assert not task.done(), "the encoder computed inside the event loop"
            return _matrix(await task, encoder)

        self._same(asyncio.run(watched()), _values(encoder, TEXTS, role))

    def test_many_threads_may_share_it(self, encoder: Encoder, role: Role) -> None:
        expected = _values(encoder, TEXTS, role)
        with ThreadPoolExecutor(4) as pool:
            results = list(pool.map(lambda _: _values(encoder, TEXTS, role), range(8)))
        for came in results:
            self._same(came, expected)

    def test_a_folder_may_be_given_as_a_text_or_as_a_path(self) -> None:
        known = self.opener()
        if known is not None:
            opened, folder = known
            for given in (str(folder), folder):
                encoder = opened(given)
                assert len(encoder.encode(TEXTS, next(iter(encoder.spec.roles)))) == len(TEXTS)
                encoder.close()

    def test_closing_twice_is_fine(self, encoder: Encoder) -> None:
        encoder.close()
        encoder.close()

    def _same(self, one: Floats, other: Floats) -> None:
        scale = max(1.0, float(np.abs(one).max(initial=0.0)))
        np.testing.assert_allclose(one, other, rtol=0, atol=self.tolerance * scale)


def _values(encoder: Encoder, texts: Sequence[str], role: Role) -> Floats:
    return _matrix(encoder.encode(texts, role), encoder)


def _matrix(vectors: Vectors, encoder: Encoder) -> Floats:
    """One row a text, of the kind and length that the spec promises."""
    values = vectors.values
    if isinstance(values, np.ndarray):
        assert encoder.spec.kind == "dense", "the spec promises sparse vectors"
        return values
    assert encoder.spec.kind == "sparse", "the spec promises dense vectors"
    matrix = np.zeros((len(values), encoder.spec.dim), dtype=np.float32)
    for row, value in zip(matrix, values, strict=True):
        assert value.indices.size == 0 or value.indices[-1] < encoder.spec.dim, "a term outside of the vocabulary"
        row[value.indices] = value.weights
    return matrix
