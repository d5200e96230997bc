"""Makes each wrong use in this process, through the program's own entry, and says what is wrong with the answer."""

import contextlib
import io
import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from huggingface_hub import constants

from bartizan_connector.__main__ import main
from bartizan_connector.base.errors import BartizanError
from tests.trial import (
    collection,
    data,
    export,
    ingest,
    keys,
    program,
    python,
    reembed,
    search,
    studies,
    towers,
    train,
)
from tests.trial.uses import Use
from tests.trial.world import home

USES: tuple[Use, ...] = tuple(
    use
    for part in (program, towers, export, train, studies, ingest, collection, reembed, data, search, keys, python)
    for use in part.USES
)
_RAW = re.compile(r"\b(?!WrongUse|SpaceMismatch)[A-Z][A-Za-z]+(Error|Exception)\b(?! of)|Traceback|fault of Bartizan")
_LIBRARYS_OWN = re.compile(
    r"Input (should|tag)|Field required|validation error|pydantic|\bstages?\.\d|at at|\b1 \w+s\b are"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came of it."""

    code: int
    out: str
    err: str

    def faults(self, use: Use) -> list[str]:
        """What is wrong with it; empty: nothing."""
        found = []
        if self.code != use.code:
            found.append(f"exit code {self.code} instead of {use.code}")
        said = self.err + self.out  # the findings of doctor and the help are results
        plain = " ".join(re.sub(r"[│╭╮╰╯─]", " ", said).split())
        if not plain:
            found.append("nothing was said")
        if not use.told or not re.search(use.told, plain):
            found.append(f"not told: {use.told}")
        for name, pattern in (("a raw exception", _RAW), ("a library's wording", _LIBRARYS_OWN)):
            if match := pattern.search(plain):
                found.append(f"{name}: {match[0]}")
        return found

    @property
    def line(self) -> str:
        """The answer in one line, for the table."""
        return " ".join(re.sub(r"[│╭╮╰╯─]", " ", self.err or self.out).split())


@contextlib.contextmanager
def hub_away() -> Iterator[None]:
    """No trial waits for the model hub, which may be there or not: it cannot be reached."""
    before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def answer(use: Use, places: MappingProxyType[str, Path], folder: Path) -> Answer:
    """Make the use in `folder`."""
    home(places, folder)
    config = folder / "bartizan.toml"
    text = config.read_text(encoding="utf-8")
    for old, new in use.swap.items():
        old = _placed(old, places)
        assert old in text, f"{use.name}: {old!r} does not stand in bartizan.toml"
        text = text.replace(old, _placed(new, places))
    config.write_text(text + _placed(use.more, places), encoding="utf-8")
    for name, content in use.files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else _placed(content, places).encode())
    with _in(folder, dict(use.environment)):
        return _called(use, places) if use.call else _typed(shlex.split(_placed(use.words, places)))


def _placed(text: str, places: MappingProxyType[str, Path]) -> str:
    for name, path in places.items():
        text = text.replace(f"{{{name}}}", str(path))
    return text


def _typed(words: list[str]) -> Answer:
    out, err = io.StringIO(), io.StringIO()
    code = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(words)
        except SystemExit as ended:
            code = int(ended.code or 0)
    return Answer(code=code, out=out.getvalue(), err=err.getvalue())


def _called(use: Use, places: MappingProxyType[str, Path]) -> Answer:
    assert use.call
    try:
        came = use.call(places)
    except BartizanError as error:
        return Answer(code=error.exit_code, out="", err=str(error))
    except Exception as error:  # noqa: BLE001  what must not be: it is told in the table
        return Answer(code=-1, out="", err=f"{type(error).__name__}: {error}")
    return Answer(code=0, out=repr(came), err="")


@contextlib.contextmanager
def _in(folder: Path, environment: dict[str, str]) -> Iterator[None]:
    before, kept = Path.cwd(), {name: os.environ.get(name) for name in environment}
    os.chdir(folder)
    os.environ.update(environment)
    try:
        yield
    finally:
        os.chdir(before)
        for name, value in kept.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
