"""The conformance suites as a user gets them: by one import, without pytest in the core, for dense and sparse."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from bartizan_connector import testing
from bartizan_connector.encode.encoder import Encoder
from bartizan_connector.space.spec import Role
from bartizan_connector.space.vectors import Vectors
from bartizan_connector.testing import EncoderSuite
from bartizan_connector.testing.encoder_fake import HashEncoder
from tests.connector.testing.sparse_fake import WordEncoder

ROOT = Path(__file__).parents[3]


class TestSparse(EncoderSuite):
    def make(self) -> Encoder:
        return WordEncoder()


class Mislabelled(HashEncoder):
    """Says sparse and gives dense vectors."""

    def __init__(self) -> None:
        super().__init__()
        self._given = HashEncoder()
        self.spec = WordEncoder().spec

    def encode(self, texts: Sequence[str], role: Role, *, timeout: float | None = None) -> Vectors:
        return self._given.encode(texts, role)


def test_a_tower_of_another_kind_than_its_spec_says_fails_its_suite() -> None:
    with pytest.raises(AssertionError, match="the spec promises sparse vectors"):
        TestSparse().test_nothing_gives_nothing(Mislabelled(), "query")


def test_every_suite_is_there_by_one_import() -> None:
    for name in testing.__all__:
        assert getattr(testing, name).__name__ == name
    assert dir(testing) == testing.__all__
    with pytest.raises(AttributeError, match="frobnicate"):
        testing.frobnicate  # noqa: B018


def run(program: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-c", program], cwd=ROOT / "connector", capture_output=True, text=True)


def test_importing_the_connector_or_the_fakes_needs_no_pytest() -> None:
    finished = run(
        "import sys; sys.modules['pytest'] = None\n"
        "import bartizan_connector, bartizan_connector.testing, bartizan_connector.search.retriever\n"
        "from bartizan_connector.testing.encoder_fake import HashEncoder\n"
        "print('fine')"
    )
    assert finished.stdout == "fine\n", finished.stderr


def test_a_suite_without_pytest_says_what_to_install() -> None:
    finished = run("import sys; sys.modules['pytest'] = None\nfrom bartizan_connector.testing import EncoderSuite")
    assert "the conformance suites need pytest: pip install pytest" in finished.stderr
