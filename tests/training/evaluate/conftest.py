"""A small judged collection, small real towers, and `bartizan` to run on them."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from bartizan_connector.__main__ import main
from bartizan_connector.space.spec import RoleSpec
from bartizan_encoders.design import Design
from bartizan_encoders.tower import Tower
from tests.judged import WORDS, write_collection


class Finished(NamedTuple):
    """What a command left on the terminal."""

    code: int
    out: str
    err: str


Run = Callable[..., Finished]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """`bartizan` with these words."""

    def bartizan(*words: object) -> Finished:
        code = 0
        try:
            main([str(word) for word in words])
        except SystemExit as ended:
            code = int(ended.code or 0)
        printed = capsys.readouterr()
        return Finished(code, printed.out, printed.err)

    return bartizan


@pytest.fixture(scope="module")
def towers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`document`; `query`, cut out of it and aligned to its space; `stranger`, of a space of its own; `broken`: NaN."""
    folder = tmp_path_factory.mktemp("towers")
    document = tiny(seed=1)
    document.save(folder / "document")
    query = document.cut([0])
    query.spec = query.spec.aligned_to(document.spec)
    query.save(folder / "query")
    tiny(seed=2).save(folder / "stranger")
    broken = tiny(seed=1)
    with torch.no_grad():
        next(broken.parameters()).fill_(float("nan"))
    broken.save(folder / "broken")
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    generator = np.random.default_rng(3)
    corpus = {f"d{number}": " ".join(generator.choice(WORDS, size=5)) for number in range(40)}
    queries = {f"q{number}": " ".join(generator.choice(WORDS, size=2)) for number in range(12)}
    qrels = {query: {f"d{id}": int(id % 3) for id in generator.choice(40, size=6, replace=False)} for query in queries}
    half = dict(list(qrels.items())[:6])
    return write_collection(tmp_path_factory.mktemp("data") / "larder", corpus, queries, test=qrels, dev=half)


def tiny(*, seed: int) -> Tower:
    vocabulary = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3} | {word: 4 + n for n, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    architecture = {
        "model_type": "bert",
        "vocab_size": len(vocabulary),
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": 16,
    }
    roles = {"query": RoleSpec(max_tokens=16), "document": RoleSpec(max_tokens=6)}
    torch.manual_seed(seed)
    return Tower.fresh(architecture, tokenizer.to_str(), Design(name=f"tiny-{seed}", roles=roles))
