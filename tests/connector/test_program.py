"""The program `bartizan` itself: what it lists, what it says of its own faults, what it lets a terminal see."""

import json
import re
from importlib.metadata import version

import pytest

from bartizan_connector.__main__ import main
from bartizan_connector.base.console import err, out, printable
from bartizan_connector.commands.program import ORDER
from bartizan_connector.doctor import installation


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


def test_a_fault_of_our_own_is_one_line_with_the_way_to_its_details(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def divide() -> None:
        raise ZeroDivisionError("division\nby [zero]")

    monkeypatch.setattr(installation, "examine", divide)
    monkeypatch.delenv("BARTIZAN_TRACEBACK", raising=False)
    with pytest.raises(SystemExit) as ended:
        main(["doctor"])
    assert ended.value.code == 1
    assert capsys.readouterr().err == (
        "error: ZeroDivisionError: division by [zero]. This was not foreseen, so it is a fault of Bartizan; "
        "BARTIZAN_TRACEBACK=1 shows where it happened\n"
    )
    monkeypatch.setenv("BARTIZAN_TRACEBACK", "1")
    with pytest.raises(ZeroDivisionError):
        main(["doctor"])


def test_nothing_that_a_terminal_would_obey_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    title = "\x1b[31mRED\x1b]0;pwn\x07 \x9b2J\x00\x7f\r\x08 ünï 漢 exe\u202etxt.\u2066a\u2028b"
    for console in (out, err):
        console.print(title, markup=False)
    out.print(f"[bold]{title}[/bold]")
    printed = capsys.readouterr()
    shown = "�[31mRED�]0;pwn� �2J���� ünï 漢 exe�txt.�a�b"
    assert (printed.err, printed.out) == (f"{shown}\n", f"{shown}\n{shown}\n")
    assert not set(printed.out + printed.err) & {
        *map(chr, range(9)),
        *map(chr, range(11, 32)),
        *map(chr, range(127, 160)),
        *"\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069",
    }
    out.print_json(data={"title": title, "half": "\udce9"})
    told = capsys.readouterr().out
    assert json.loads(told) == {"title": title, "half": "\udce9"}
    assert printable(told) == told
    assert printable(title) == shown
    assert printable("two\nlines\tand a tab") == "two\nlines\tand a tab"


@pytest.mark.parametrize("path", ["x" * 300, "a\0b"])
def test_a_path_that_cannot_be_one_is_wrong_use(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["tower", "show", path])
    assert ended.value.code == 2
    assert "fault of Bartizan" not in capsys.readouterr().err
