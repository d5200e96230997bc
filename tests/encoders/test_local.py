"""TorchEncoder under the conformance suite."""

from pathlib import Path

import numpy as np
import pytest
import torch

from bartizan_connector.encode.encoder import Encoder
from bartizan_connector.testing.encoder import TEXTS, EncoderSuite, Opener
from bartizan_encoders.local import TorchEncoder
from bartizan_encoders.tower import Tower
from tests.encoders import tiny


class TestEncoder(EncoderSuite):
    @pytest.fixture(autouse=True)
    def _folder(self, bert_folder: Path) -> None:
        self.folder = bert_folder

    def make(self) -> Encoder:
        return TorchEncoder.open(self.folder, threads=1)

    def opener(self) -> Opener:
        return TorchEncoder.open, self.folder


@pytest.mark.packaging
class TestDecoderOfQueries(EncoderSuite):
    def make(self) -> Encoder:
        tower = tiny.tower("llama")
        tower.spec = tower.spec.model_copy(update={"roles": {"query": tower.spec.roles["query"]}})
        return TorchEncoder(tower, batch_tokens=100)


def test_each_role_is_encoded_with_its_own_prefix(bert_folder: Path) -> None:
    encoder = TorchEncoder.open(bert_folder)
    query, document = (encoder.encode(["one"], role).values for role in ("query", "document"))
    same = encoder.encode(["ask: one"], "document").values
    assert isinstance(query, np.ndarray)
    np.testing.assert_array_equal(query, same)
    assert not np.allclose(query, document)


def test_vectors_are_those_of_the_bare_tower(bert_folder: Path) -> None:
    encoder, tower = TorchEncoder.open(bert_folder, batch_tokens=64), Tower.load(bert_folder)
    values = encoder.encode(TEXTS, "document").values
    for row, text in enumerate(tower.tokens.encode(TEXTS, "document")):
        with torch.no_grad():
            alone = tower(torch.tensor([text.ids]), torch.ones(1, len(text.ids), dtype=torch.long))
        np.testing.assert_allclose(values[row], alone[0].numpy(), atol=1e-6)


def test_dropout_is_off_while_encoding_and_the_tower_goes_on_training() -> None:
    tower = tiny.tower().train()
    encoder = TorchEncoder(tower)
    np.testing.assert_array_equal(encoder.encode(TEXTS, "query").values, encoder.encode(TEXTS, "query").values)
    assert tower.training


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("kind", ["bert", *tiny.DECODERS])
def test_a_gpu_gives_the_vectors_of_a_cpu(kind: str, tmp_path: Path) -> None:
    folder = tiny.saved(tmp_path / "tower", kind, dim=8)
    on_gpu, on_cpu = TorchEncoder.open(folder), TorchEncoder(Tower.load(folder))
    assert on_gpu.spec == on_cpu.spec
    np.testing.assert_allclose(
        on_gpu.encode(TEXTS * 5, "document").values, on_cpu.encode(TEXTS * 5, "document").values, atol=1e-4
    )
