"""The program `bartizan` itself: what it lists, and its version."""

import re
from importlib.metadata import version

import pytest

from bartizan_connector.__main__ import ORDER, main


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 0
    return capsys.readouterr().out


def test_the_help_lists_every_command_in_the_order_a_newcomer_meets_them(capsys: pytest.CaptureFixture[str]) -> None:
    shown = printed(capsys, "--help")
    assert tuple(re.findall(rf"^\W*({'|'.join(ORDER)}) ", shown, flags=re.MULTILINE)) == ORDER


def test_the_version_is_told_and_the_help_says_how_to_ask(capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(capsys, "--version") == f"bartizan {version('bartizan-search')}\n"
    assert "--version" in printed(capsys, "--help")
