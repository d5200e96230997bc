"""The real MiniLM through the real server: what was trained is what was exported is what is served, fp32 and int8."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bartizan_connector.base.errors import Retry
from bartizan_connector.encode.encoder import Encoder
from bartizan_connector.encode.onnx import OnnxEncoder
from bartizan_connector.encode.triton.encoder import TritonEncoder
from bartizan_connector.space.spec import Precision
from bartizan_connector.space.vectors import Floats
from bartizan_encoders.importing import import_tower
from bartizan_encoders.local import TorchEncoder
from bartizan_encoders.tower import Tower
from bartizan_triton.export import export_tower
from bartizan_triton.golden import golden_texts
from tests.needs import unavailable
from tests.served import added, asking
from tests.servers.triton import TritonServer

pytestmark = pytest.mark.server

TEXTS = [
    "how do i reset my password", "", "?", "[SEP] in the text [MASK]", "ÀÉÎ 東京 🙂 a\u0301", "x" * 300, "Ⅷ ﬁ ½ №",
    "The tide gauge at the harbour recorded a level 40 cm above the forecast. " * 30, *golden_texts(64),
]  # fmt: skip
PRECISIONS: tuple[Precision, ...] = ("fp32", "int8")
COSINE = {"fp32": 0.9999, "int8": 0.99}
DRIFT = {"fp32": 1e-5, "int8": 1e-4}
"""Most that a component may move with a text's company; a vector is of length 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """One tower in its three places."""

    trained: Tower
    exported: OnnxEncoder
    served: TritonEncoder


@pytest.fixture(scope="module")
def towers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Served]]:
    place = tmp_path_factory.mktemp("minilm")
    try:
        trained = import_tower("minilm")
    except Retry as unreachable:
        unavailable(f"the MiniLM weights are not here: {unreachable}")
    trained.save(place / "tower")
    for precision in PRECISIONS:
        export_tower(place / "tower", place / precision, precision)
        added(place / "models", place / precision, precision)
    server = TritonServer(place / "models")
    server.start()
    try:
        found = {
            precision: Served(
                trained=trained,
                exported=OnnxEncoder.open(place / precision, threads=1),
                served=asking(server, place / precision, precision),
            )
            for precision in PRECISIONS
        }
        yield found
        for each in found.values():
            each.served.close()
            each.exported.close()
    finally:
        server.stop()


def values(encoder: Encoder, texts: Sequence[str]) -> Floats:
    came = encoder.encode(texts, "document").values
    assert isinstance(came, np.ndarray)
    return came


@pytest.mark.parametrize("precision", PRECISIONS)
def test_trained_is_exported_is_served(towers: dict[str, Served], precision: str) -> None:
    tower = towers[precision]
    trained = values(TorchEncoder(tower.trained), TEXTS)
    exported, served = values(tower.exported, TEXTS), values(tower.served, TEXTS)
    assert (trained * served).sum(axis=1).min() >= COSINE[precision]
    np.testing.assert_allclose(served, exported, atol=DRIFT[precision])
    assert tower.served.spec == tower.exported.spec


@pytest.mark.parametrize("precision", PRECISIONS)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    texts=st.lists(
        st.one_of(st.text(st.characters(exclude_categories=["Cs"]), max_size=40), st.sampled_from(TEXTS)),
        min_size=1,
        max_size=8,
    )
)
def test_any_text_in_any_company_gives_the_vector_that_it_has_alone(
    towers: dict[str, Served], precision: str, texts: list[str]
) -> None:
    tower = towers[precision]
    alone = np.concatenate([values(tower.exported, [text]) for text in texts])
    np.testing.assert_allclose(values(tower.served, texts), alone, atol=DRIFT[precision])
