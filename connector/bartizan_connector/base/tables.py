"""TOML tables as frozen values: read, check every key, and say in words what is wrong."""

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from bartizan_connector.base.address import without_password
from bartizan_connector.base.errors import WrongUse

T = TypeVar("T", bound=BaseModel)
_SECRETS = frozenset({"token", "password"})
_PLAIN = {
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "string_type": "a text",
    "path_type": "a path",
    "tuple_type": "a list",
    "model_type": "a table",
    "dict_type": "a table",
    "bool_parsing": "true or false",
    "bool_type": "true or false",
}
"""What pydantic says in the words of programs."""
_TELL_ENOUGH = frozenset({"missing", "value_error", "too_short", "union_tag_invalid", "union_tag_not_found"})
"""Problems whose words name what came already, or where nothing did."""


class Text(str):
    """A value that can only be given as a text, such as an environment variable's; it may be read as a number."""


class Table(BaseModel):
    """A table of a TOML file: frozen, and an unknown key is an error. TOML has types: neither `true` nor `"30"` is a
    number."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    @model_validator(mode="before")
    @classmethod
    def _numbers_are_numbers(cls, table: Any) -> Any:
        if not isinstance(table, Mapping):
            return table
        fields = cls.model_fields
        return {key: _plain(fields[key].annotation, value) if key in fields else value for key, value in table.items()}


class Unfit(ValueError):
    """A table that was refused by a model which a value inside the table picked: raised by a validator, it is told as
    if the model stood in the file's own declaration."""

    def __init__(self, model: type[BaseModel], error: ValidationError) -> None:
        self.model = model
        self.problems = _causes(error.errors())
        super().__init__("; ".join(_explain(problem, model) for problem in self.problems))


class _NoNumber:
    """A truth value or a quoted text where a number is asked for, or a number or a quoted text where a truth value is,
    which pydantic would take for one."""

    def __init__(self, came: object) -> None:
        self._came = came

    def __repr__(self) -> str:
        return repr(self._came)


class _Nothing:
    """An empty text where a path is asked for."""

    def __repr__(self) -> str:
        return "''"


def _plain(annotation: Any, value: Any) -> Any:
    kinds = _scalars_in(annotation)
    if value == "" and Path in kinds and str not in kinds:
        return _Nothing()  # a path of no text would be the folder that one is in
    if bool in kinds and kinds <= {bool, type(None)} and type(value) in (int, float, str):
        return _NoNumber(value)  # 1 and "yes" are no truth values
    if not kinds & {int, float}:
        return value
    if isinstance(value, Mapping):
        return {key: _plain(annotation, item) for key, item in value.items()}
    quoted = type(value) is str and str not in kinds
    return _NoNumber(value) if quoted or (isinstance(value, bool) and bool not in kinds) else value


def _scalars_in(annotation: Any) -> set[type]:
    """The plain types that an annotation (`int | None`, `dict[str, float]`, …) can hold; tables have their own."""
    parts = get_args(annotation)
    if get_origin(annotation) is Literal:
        return {type(part) for part in parts}
    if not parts:
        return {annotation} if isinstance(annotation, type) else set()
    if get_origin(annotation) is Annotated:
        return _scalars_in(parts[0])
    if get_origin(annotation) is dict:
        return _scalars_in(parts[1])
    return {kind for part in parts for kind in _scalars_in(part)}


def read_toml(path: Path, what: str) -> dict[str, Any]:
    """The file's tables; `what` names the file's purpose in an error."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise WrongUse(f"cannot read the {what} {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise WrongUse(f"{path} is not valid TOML: {error}") from error


def check(
    model: type[T],
    tables: Mapping[str, Any],
    origin: Path,
    context: Any = None,
    *,
    origins: Mapping[tuple[str, ...], str] | None = None,
) -> T:
    """The tables as a value of `model`; every problem is named at once, with what came and the keys that exist.
    `origins` names where a key came from that does not stand in the file."""
    try:
        return model.model_validate(tables, context=context)
    except ValidationError as error:
        problems: dict[str, list[str]] = {}
        for problem, at, known in _opened(_causes(error.errors()), model):
            place = _origin((*at, *problem["loc"]), origins or {}) or str(origin)
            problems.setdefault(place, []).append(_explain(problem, known, at))
        refusal = WrongUse("; ".join(f"{place}: {'; '.join(told)}" for place, told in problems.items()))
        refusal.way_out = "correct what is named; docs/configuration.md lists every key"
        raise refusal from error


def _opened(problems: Sequence[Any], model: type[BaseModel]) -> Iterator[tuple[Any, tuple[Any, ...], type[BaseModel]]]:
    """Each problem with the place and the model that it counts from; those inside an Unfit one by one."""
    for problem in problems:
        cause = problem.get("ctx", {}).get("error")
        if isinstance(cause, Unfit):
            yield from ((inner, tuple(problem["loc"]), cause.model) for inner in cause.problems)
        else:
            yield problem, (), model


def _origin(where: Sequence[Any], origins: Mapping[tuple[str, ...], str]) -> str | None:
    """The environment variable that set this key, or one inside it."""
    return next((name for key, name in origins.items() if tuple(where[: len(key)]) == key), None)


def _causes(problems: Sequence[Any]) -> list[Any]:
    """The problems that are not mere consequences: a list with a broken item is also reported as too short."""
    places = [problem["loc"] for problem in problems]
    return [p for p in problems if not any(len(q) > len(p["loc"]) and q[: len(p["loc"])] == p["loc"] for q in places)]


def _explain(problem: Any, model: type[BaseModel], at: tuple[Any, ...] = ()) -> str:
    """One pydantic problem in words; for an unknown key, the keys that exist. `at` is where `model` stands."""
    where = _place((*at, *problem["loc"]))
    if problem["type"] != "extra_forbidden":
        told = f"{_plainly(problem)}{_what_came(problem)}"
        return f"{where}: {told}" if where else told
    tables = [model]
    for part in problem["loc"][:-1]:
        tables = _step_into(tables, part)
    known = sorted({key for table in tables for key in table.model_fields})
    return f"unknown key {where}; known here: {', '.join(known)}" if known else f"unknown key {where}"


def _place(parts: Sequence[Any]) -> str:
    """The key as people write it; items of a list count from 1, as lines and stages do."""
    return ".".join(str(part + 1 if isinstance(part, int) else part) for part in parts if part != "[key]")


def _plainly(problem: Any) -> str:
    """pydantic's phrase without what is said of programs."""
    if problem["type"] in _PLAIN:
        return f"must be {_PLAIN[problem['type']]}"
    if problem["type"] == "missing":
        return "is missing"
    if problem["type"] == "string_too_short":
        return "must not be empty"
    if problem["type"] == "too_short":
        return f"must have at least {problem['ctx']['min_length']} item"
    if problem["type"] == "union_tag_invalid":
        key, known = problem["ctx"]["discriminator"].strip("'"), problem["ctx"]["expected_tags"]
        return f"the {key} {problem['ctx']['tag']!r:.80} is not known; there are {known}"
    if problem["type"] == "union_tag_not_found":
        return f"{problem['ctx']['discriminator'].strip(chr(39))} is missing: it says what this table is"
    told = str(problem["msg"]).removeprefix("Value error, ").split(", unable to parse")[0]
    return told.replace("Input should be", "must be").replace("a valid ", "a ")


def _what_came(problem: Any) -> str:
    """The value, where it is one that may be shown."""
    value = problem["input"]
    if problem["type"] in _TELL_ENOUGH or not _SECRETS.isdisjoint(problem["loc"]):
        return ""
    if isinstance(value, Mapping | list | tuple):
        return f", but a {'table' if isinstance(value, Mapping) else 'list'} came"
    shown = without_password(value) if isinstance(value, str) else value
    return f", but {shown!r:.80} came"


def _step_into(tables: list[type[BaseModel]], part: str | int) -> list[type[BaseModel]]:
    """The tables one step deeper: an item of a list or of named ones, the member of a union that its `kind` picks,
    or a key's tables."""
    picked = [table for table in tables if "kind" in table.model_fields and part in _kinds(table)]
    if picked:
        return picked
    holding = [table for table in tables if part in table.model_fields]
    return [inner for table in holding for inner in _tables_in(table.model_fields[str(part)].annotation)] or tables


def _kinds(table: type[BaseModel]) -> tuple[Any, ...]:
    return get_args(table.model_fields["kind"].annotation)


def _tables_in(annotation: Any) -> list[type[BaseModel]]:
    """Every table that an annotation (`X | None`, `tuple[X, ...]`, a union …) can hold."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [table for part in get_args(annotation) for table in _tables_in(part)]
