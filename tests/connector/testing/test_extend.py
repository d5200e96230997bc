"""The parts on docs/extend.md pass their suites: its code is run here, and its test classes are this module's."""

import re
from pathlib import Path
from typing import Any

from bartizan_connector import Collection, Config, Leg, MemoryBackend, Retriever
from bartizan_connector.commands.ingest import ingest_all
from bartizan_connector.config.settings import TEXT_FIELDS
from bartizan_connector.stream.work import run
from tests.exports import export_folder

PAGE = Path(__file__).parents[3] / "docs/extend.md"
SNIPPETS = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)

for snippet in SNIPPETS:
    exec(compile(snippet, str(PAGE), "exec"), globals())


def test_each_part_of_the_page_brings_its_suite() -> None:
    suites = {name for name, value in globals().items() if name.startswith("Test") and isinstance(value, type)}
    assert suites == {"TestLetterEncoder", "TestCountingBackend", "TestListSource"}
    assert len(SNIPPETS) == 4


def test_the_encoders_table_opens_it() -> None:
    settings = globals()["LetterSettings"](address="host:1")
    assert settings.open(Path()).spec.name == "letters"


def test_the_pages_source_is_ingested_and_the_pages_encoder_searches(tmp_path: Path) -> None:
    """Every entry that the pages name takes a part of one's own."""
    medium = globals()["ListMedium"]()
    medium.fill([b'{"_id": "a", "text": "one tower"}', b"{", b'{"_id": "b", "text": "two"}'])
    (tmp_path / "bartizan.toml").write_text(
        f'[collection]\nname = "docs"\n[spaces.dense]\ndocument_tower = "{export_folder("bert", "fp32")}"\n'
    )
    report = ingest_all(Config.load(tmp_path / "bartizan.toml"), globals()["ListSource"](medium, 2))
    assert (report.read, report.written, report.dead, medium.committed) == (3, 2, 1, 3)
    encoder = globals()["LetterEncoder"]()
    collection = Collection(name="letters", legs=(Leg.of(encoder.spec),), fields=TEXT_FIELDS)
    backend = MemoryBackend()
    report = run(
        globals()["ListSource"](medium_of(b'{"_id": "a", "text": "abc"}'), 1), {"dense": encoder}, backend, collection
    )
    with Retriever({"dense": encoder}, backend.open(collection)) as retriever:
        assert [hit.id for hit in retriever.search("abc", k=1)] == ["a"]


def medium_of(*values: bytes) -> Any:
    medium = globals()["ListMedium"]()
    medium.fill(list(values))
    return medium
