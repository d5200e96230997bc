"""Encoders that break one promise each, and the test of the suite that must tell."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bartizan_connector.base.errors import BartizanError, Retry
from bartizan_connector.encode.encoder import Encoder
from bartizan_connector.space.spec import Role, TowerSpec
from bartizan_connector.space.vectors import SparseVector, Vectors
from bartizan_connector.testing.encoder import TEXTS, EncoderSuite, Opener
from tests.connector.encode.engines import counting

TOLD = (AssertionError, BartizanError, pytest.fail.Exception, TypeError, ValueError, IndexError, RuntimeError)


class Suite(EncoderSuite):
    """Its tests are called here, one by one, on encoders that are given to them."""

    def make(self) -> Encoder:
        raise NotImplementedError


class Sound:
    """Passes every test; those below change one thing."""

    kind: Any = "dense"

    def __init__(self) -> None:
        self._inner, _ = counting(self.kind)

    @property
    def spec(self) -> TowerSpec:
        return self._inner.spec

    def encode(self, texts: Sequence[str], role: Role, *, timeout: float | None = None) -> Vectors:
        return self._inner.encode(texts, role, timeout=timeout)

    async def aencode(self, texts: Sequence[str], role: Role, *, timeout: float | None = None) -> Vectors:
        return await self._inner.aencode(texts, role, timeout=timeout)

    def close(self) -> None:
        self._inner.close()


def giving(change: Callable[[Vectors], Vectors]) -> type[Sound]:
    """A sound encoder whose answers are changed."""

    class Changed(Sound):
        def encode(self, texts: Sequence[str], role: Role, *, timeout: float | None = None) -> Vectors:
            return change(super().encode(texts, role, timeout=timeout))

    return Changed


def moved(change: Callable[[Any], Any]) -> type[Sound]:
    """A sound encoder whose values are changed."""
    return giving(lambda vectors: replace(vectors, values=change(vectors.values)))


class NeedsTexts(Sound):
    def encode(self, texts: Sequence[str], role: Role, *, timeout: float | None = None) -> Vectors:
        return super().encode(texts if texts else [""], role, timeout=timeout)


class PlaysAnyRole(Sound):
    def encode(self, texts: Sequence[str], role: Role, *, timeout: float | None = None) -> Vectors:
        return super().encode(texts, role if role in self.spec.roles else "query", timeout=timeout)


class TakesAnyText(Sound):
    def encode(self, texts: Sequence[str], role: Role, *, timeout: float | None = None) -> Vectors:
        return super().encode([text.encode(errors="replace").decode() for text in texts], role, timeout=timeout)


class Patient(Sound):
    def encode(self, texts: Sequence[str], role: Role, *, timeout: float | None = None) -> Vectors:
        return super().encode(texts, role)


class LooksAtTheClockAfterwards(Sound):
    def encode(self, texts: Sequence[str], role: Role, *, timeout: float | None = None) -> Vectors:
        begun = time.monotonic()
        vectors = super().encode(texts, role)
        time.sleep(len(texts) / 2_000)
        if timeout is not None and time.monotonic() - begun > timeout:
            raise Retry("too late")
        return vectors


class NeverInTime(Sound):
    def encode(self, texts: Sequence[str], role: Role, *, timeout: float | None = None) -> Vectors:
        if timeout is not None:
            raise Retry("too late")
        return super().encode(texts, role)


class ComputesInTheLoop(Sound):
    async def aencode(self, texts: Sequence[str], role: Role, *, timeout: float | None = None) -> Vectors:
        return self.encode(texts, role, timeout=timeout)


class KeepsItsCallersTexts(Sound):
    calls = 0

    def encode(self, texts: Sequence[str], role: Role, *, timeout: float | None = None) -> Vectors:
        self.calls += 1
        mine = self.calls
        time.sleep(0.02)
        vectors = super().encode(texts, role, timeout=timeout)
        return replace(vectors, values=vectors.values[::-1]) if self.calls != mine else vectors  # type: ignore[arg-type]


class ClosesOnce(Sound):
    closed = False

    def close(self) -> None:
        if self.closed:
            raise RuntimeError("closed already")
        self.closed = True
        super().close()


class OutsideOfTheVocabulary(Sound):
    kind = "sparse"

    def encode(self, texts: Sequence[str], role: Role, *, timeout: float | None = None) -> Vectors:
        stranger = SparseVector(np.array([self.spec.dim], dtype=np.int32), np.ones(1, dtype=np.float32))
        return replace(super().encode(texts, role, timeout=timeout), values=(stranger,) * len(texts))


class OneForAll(Sound):
    kind = "sparse"

    def encode(self, texts: Sequence[str], role: Role, *, timeout: float | None = None) -> Vectors:
        vectors = super().encode(texts, role, timeout=timeout)
        return replace(vectors, values=tuple(vectors.values[0] for _ in texts))  # type: ignore[misc]


def _sorted_by_length(vectors: Vectors) -> Vectors:
    return replace(vectors, values=np.array(vectors.values)[np.argsort(vectors.tokens)])


BROKEN: list[tuple[type[Sound], str]] = [
    (giving(lambda v: replace(v, tower_id="tw-another")), "test_a_batch_says_which_space_and_which_tower_it_is_from"),
    (giving(lambda v: replace(v, space_id="tw-another")), "test_a_batch_says_which_space_and_which_tower_it_is_from"),
    (moved(lambda v: v[:, :-1]), "test_every_text_gives_one_finite_vector_of_the_promised_length"),
    (moved(lambda v: v * 2), "test_every_text_gives_one_finite_vector_of_the_promised_length"),
    (moved(lambda v: v * np.float32("nan")), "test_every_text_gives_one_finite_vector_of_the_promised_length"),
    (OutsideOfTheVocabulary, "test_every_text_gives_one_finite_vector_of_the_promised_length"),
    (moved(lambda v: v[:1].repeat(len(v), axis=0)), "test_different_texts_give_different_vectors"),
    (OneForAll, "test_different_texts_give_different_vectors"),
    (moved(lambda v: v[::-1]), "test_order_is_kept"),
    (giving(_sorted_by_length), "test_order_is_kept"),
    (giving(lambda v: replace(v, tokens=tuple(sorted(v.tokens)))), "test_order_is_kept"),
    (moved(lambda v: v + v.sum(axis=0) / 100), "test_a_text_gives_the_same_vector_alone_and_in_any_company"),
    (NeedsTexts, "test_nothing_gives_nothing"),
    (giving(lambda v: replace(v, truncated=(False,) * len(v))), "test_a_long_text_is_cut_on_the_right_and_counted"),
    (
        giving(lambda v: replace(v, tokens=tuple(min(each, 20) for each in v.tokens))),
        "test_a_long_text_is_cut_on_the_right_and_counted",
    ),
    (PlaysAnyRole, "test_a_role_that_the_tower_cannot_play_is_refused"),
    (TakesAnyText, "test_a_text_that_is_not_unicode_is_refused_by_its_position"),
    (Patient, "test_a_deadline_that_has_passed_raises_retry"),
    (LooksAtTheClockAfterwards, "test_a_deadline_ends_the_work"),
    (NeverInTime, "test_a_generous_deadline_changes_nothing"),
    (ComputesInTheLoop, "test_async_gives_the_same_and_leaves_the_loop_free"),
    (KeepsItsCallersTexts, "test_many_threads_may_share_it"),
    (ClosesOnce, "test_closing_twice_is_fine"),
]


def _judge(encoder: Sound, name: str) -> None:
    test = getattr(Suite(), name)
    wants_a_role = "role" in test.__code__.co_varnames[: test.__code__.co_argcount]
    test(encoder, "query") if wants_a_role else test(encoder)


@pytest.mark.packaging
@pytest.mark.parametrize(("broken", "name"), BROKEN, ids=lambda value: getattr(value, "__name__", value))
def test_an_encoder_that_breaks_a_promise_fails(broken: type[Sound], name: str) -> None:
    sound = Sound()
    sound.kind = broken.kind
    _judge(sound, name)
    with pytest.raises(TOLD):
        _judge(broken(), name)


def test_every_promise_is_broken_once() -> None:
    named = {name for name in dir(EncoderSuite) if name.startswith("test_")}
    assert named == {name for _, name in BROKEN} | {"test_a_folder_may_be_given_as_a_text_or_as_a_path"}


def test_an_encoder_that_takes_no_text_for_a_folder_fails(tmp_path: Path) -> None:
    def path_only(folder: Any) -> Encoder:
        assert (folder / "x").parent == folder
        return Sound()

    class Opened(Suite):
        def opener(self) -> Opener:
            return path_only, tmp_path

    with pytest.raises(TypeError):
        Opened().test_a_folder_may_be_given_as_a_text_or_as_a_path()


def test_a_suite_without_texts_would_prove_nothing() -> None:
    assert len(set(TEXTS)) == len(TEXTS) > 3
