"""Every key of every table, of `bartizan.toml` and of recipes, with a value of a kind that it cannot have."""

import json
import re
from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from bartizan_connector.config import Config
from bartizan_connector.encode.settings import OnnxSettings
from bartizan_connector.encode.triton.settings import TritonSettings
from bartizan_encoders.settings import TorchSettings
from bartizan_training.recipe import AnyStep, Recipe
from tests.trial.uses import Use, uses

_TABLE, _NUMBER = "{ nonsense = 1 }", "3"
_ENGINES = {
    "onnx": (OnnxSettings, {}),
    "torch": (TorchSettings, {}),
    "triton": (TritonSettings, {"url": "grpc://127.0.0.1:9"}),
}


def _tables_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [table for part in get_args(annotation) for table in _tables_in(part)]


def _holds_many(annotation: Any) -> bool:
    return get_origin(annotation) is tuple or any(_holds_many(part) for part in get_args(annotation))


def _kinds(table: type[BaseModel]) -> list[str]:
    kind = table.model_fields.get("kind")
    return list(get_args(kind.annotation)) if kind and get_origin(kind.annotation) is Literal else []


def _wrong(field: FieldInfo) -> str:
    """A value of a kind that no such field takes."""
    is_table = _tables_in(field.annotation) or get_origin(field.annotation) is dict or "dict" in str(field.annotation)
    return _NUMBER if is_table else _TABLE


def _in_tables(name: str, field: FieldInfo) -> Iterator[tuple[str, str]]:
    """Keys of the tables that a key holds: each key, and the line that gives it wrongly."""
    for table in _tables_in(field.annotation):
        kind = "".join(f'kind = "{each}", ' for each in _kinds(table)[:1])
        for key, inner in table.model_fields.items():
            if key != "kind":
                text = f"{{ {kind}{key} = {_wrong(inner)} }}"
                yield key, f"{name} = [{text}]" if _holds_many(field.annotation) else f"{name} = {text}"


def _recipes() -> Iterator[Use]:
    head = {"name": '"r"', "tower": '"{toy}/tower"', "steps": '[{ kind = "mine", path = "{toy}/data" }]'}
    for key, field in Recipe.model_fields.items():
        yield _recipe(key, head | {key: _wrong(field)})
    for name, field in (("tower", Recipe.model_fields["tower"]),):
        for key, line in _in_tables(name, field):
            yield _recipe(key, head | {name: line.removeprefix(f"{name} = ")})
    for step in _tables_in(AnyStep):
        for key, field in step.model_fields.items():
            if key == "kind":
                continue
            lines = [(key, f"{key} = {_wrong(field)}"), *_in_tables(key, field)]
            for inner, line in lines:
                yield _recipe(inner, head | {"steps": f'[{{ kind = "{_kinds(step)[0]}", {line} }}]'})


def _recipe(key: str, tables: dict[str, str]) -> Use:
    text = "".join(f"{name} = {value}\n" for name, value in tables.items())
    shown = text.split("steps = ")[-1].strip() if key not in ("name", "tower") else text.split("\n")[0]
    told = rf"\b{re.escape(key)}(\.[\w-]+)*: (must|the kind|.* is missing)"
    (use,) = uses(
        "recipe key", ("train r.toml --out run", 2, told, {"files": {"r.toml": text}, "name": f"{key}: {shown}"})
    )
    return use


def _configurations() -> Iterator[Use]:
    for table, field in Config.model_fields.items():
        yield _variable(table, "3", rf"\b{table}(\.\w+)*: must")
        if table in ("spaces", "encoders"):
            continue
        for model in _tables_in(field.annotation):
            for key in model.model_fields:
                yield _variable(
                    f"{table}__{key}",
                    '{"nonsense": 1}',
                    rf"\b{table}\.{key}(\.[\w]+)*: |unknown key {table}\.{key};|unknown kind",
                )
    for key in ("document_tower", "query_tower", "space_id", "document_encoder", "query_encoder"):
        yield _variable(f"spaces__dense__{key}", '{"nonsense": 1}', rf"spaces\.dense\.{key}: must")
    for engine, (model, needed) in _ENGINES.items():
        for key in model.model_fields:
            value = json.dumps({"engine": engine} | needed | {key: {"nonsense": 1}})
            told = r"encoders\.query: unknown engine" if key == "engine" else rf"encoders\.query\.{key}: must"
            yield _variable("encoders__query", value, told)


def _variable(path: str, value: str, told: str) -> Use:
    name = f"BARTIZAN__{path.upper()}"
    shown = f"{name}='{value}' bartizan search tower"
    (use,) = uses("configuration key", ("search tower", 2, told, {"environment": {name: value}, "name": shown}))
    return use


USES = [*_recipes(), *_configurations()]
