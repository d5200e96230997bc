"""TOML tables as frozen values: read, check every key, and say in words what is wrong."""

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from bartizan_connector.errors import WrongUse

T = TypeVar("T", bound=BaseModel)


class Table(BaseModel):
    """A table of a TOML file: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


def read_toml(path: Path, what: str) -> dict[str, Any]:
    """The file's tables; `what` names the file's purpose in an error."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise WrongUse(f"cannot read the {what} {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise WrongUse(f"{path} is not valid TOML: {error}") from error


def check(model: type[T], tables: Mapping[str, Any], origin: Path, context: Any = None) -> T:
    """The tables as a value of `model`; every problem is named at once, with the keys that exist."""
    try:
        return model.model_validate(tables, context=context)
    except ValidationError as error:
        problems = "; ".join(_explain(problem, model) for problem in _causes(error.errors()))
        raise WrongUse(f"{origin}: {problems}") from error


def _causes(problems: Sequence[Any]) -> list[Any]:
    """The problems that are not mere consequences: a list with a broken item is also reported as too short."""
    places = [problem["loc"] for problem in problems]
    return [p for p in problems if not any(len(q) > len(p["loc"]) and q[: len(p["loc"])] == p["loc"] for q in places)]


def _explain(problem: Any, model: type[BaseModel]) -> str:
    """One pydantic problem in words; for an unknown key, the keys that exist."""
    where = ".".join(str(part) for part in problem["loc"])
    if problem["type"] != "extra_forbidden":
        return f"{where}: {problem['msg']}" if where else str(problem["msg"])
    tables = [model]
    for part in problem["loc"][:-1]:
        tables = _step_into(tables, part)
    known = sorted({key for table in tables for key in table.model_fields})
    return f"unknown key {where}; known here: {', '.join(known)}" if known else f"unknown key {where}"


def _step_into(tables: list[type[BaseModel]], part: str | int) -> list[type[BaseModel]]:
    """The tables one step deeper: a list's item, the member of a union that its `kind` picks, or a key's tables."""
    if isinstance(part, int):
        return tables
    picked = [table for table in tables if "kind" in table.model_fields and part in _kinds(table)]
    return picked or [
        inner
        for table in tables
        if part in table.model_fields
        for inner in _tables_in(table.model_fields[part].annotation)
    ]


def _kinds(table: type[BaseModel]) -> tuple[Any, ...]:
    return get_args(table.model_fields["kind"].annotation)


def _tables_in(annotation: Any) -> list[type[BaseModel]]:
    """Every table that an annotation (`X | None`, `tuple[X, ...]`, a union …) can hold."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [table for part in get_args(annotation) for table in _tables_in(part)]
