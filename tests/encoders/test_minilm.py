"""The real MiniLM: the tower is what sentence-transformers publishes, to the last token and the sixth decimal."""

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from bartizan_connector.base.errors import Retry
from bartizan_encoders import backbone as backbones
from bartizan_encoders.hub import locate
from bartizan_encoders.importing import import_tower
from bartizan_encoders.local import TorchEncoder
from bartizan_encoders.tower import Tower
from tests.needs import unavailable

TEXTS = [
    "how do i reset my password", "", "?", "[SEP] in the text [MASK]", "ÀÉÎ 東京 🙂 a\u0301", "x" * 300, "Ⅷ ﬁ ½ №",
    "The tide gauge at the harbour recorded a level 40 cm above the forecast. " * 30,
]  # fmt: skip


@pytest.fixture(scope="module")
def minilm() -> Tower:
    try:
        return import_tower("minilm")
    except Retry as unreachable:
        unavailable(f"the MiniLM weights are not here: {unreachable}")


def test_it_is_the_tower_that_it_always_was(minilm: Tower) -> None:
    spec = minilm.spec
    assert spec.tower_id == "tw-76d377206c9e443b02294f9ad4bef6e5"
    assert (spec.dim, spec.pooling, spec.similarity, spec.roles["query"].max_tokens) == (384, "mean", "cosine", 256)


def test_ids_and_vectors_are_those_of_transformers(minilm: Tower) -> None:
    folder = locate("minilm")
    with backbones.quiet_transformers():
        tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    ours = minilm.tokens.encode(TEXTS, "document")
    vectors = TorchEncoder(minilm).encode(TEXTS, "document").values
    assert [text.truncated for text in ours] == [False] * 7 + [True]
    for row, text in enumerate(TEXTS):
        batch = tokenizer(text, truncation=True, max_length=256, return_tensors="pt")
        assert ours[row].ids == batch["input_ids"][0].tolist()
        with torch.no_grad():
            pooled = model(**batch).last_hidden_state[0].numpy().mean(axis=0)
        np.testing.assert_allclose(vectors[row], pooled / np.linalg.norm(pooled), atol=1e-6)
