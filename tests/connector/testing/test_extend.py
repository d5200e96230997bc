"""The parts on docs/extend.md pass their suites: its code is run here, and its test classes are this module's."""

import re
from pathlib import Path

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
