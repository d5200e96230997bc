"""A first `bartizan.toml` for towers that are there: what each key is for, and what else it could be."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bartizan_connector.base.errors import WrongUse
from bartizan_connector.base.tables import check
from bartizan_connector.encode.settings import DEFAULT_ENGINE, engine_of
from bartizan_connector.space.spec import TowerSpec
from bartizan_connector.store.settings import BackendSettings

_HEAD = """\
# Bartizan's configuration: ingest, search, eval and doctor read this file. Paths are relative to it. Every key can be
# overridden by the environment (BARTIZAN__BACKEND__URI=…). All keys and their defaults: docs/configuration.md

[collection]
name = {name}
# Typed fields beside title and text, for filters; one without a default must be in every document:
# fields = [{{ name = "year", type = "int", default = 0 }}, {{ name = "lang", type = "string" }}]
"""
_SPACE = """
[spaces.{leg}]                  # a leg of the collection: {kind}, {dim} {unit}
document_tower = {document}
query_tower = {query}
space_id = "{space_id}"     # towers of any other space are refused
"""
_TOWERS_APART = """\
document_encoder = {document}
query_encoder = {query}
"""
_BACKEND = """
[backend]
uri = {uri}            # one file: the embedded store. A server: "http://host:19530"; Milvus Lite: "index.db"
{lexical}
"""
_OWN_WORDS = "lexical = true                  # its words are searched too, beside the vectors"
_NO_WORDS = '# lexical = "words"            # a folder for an index of words; without it, vectors alone are searched'
_SEARCH = """
[search]
fusion = "rrf"                  # how the legs become one list: by ranks; or "scores"
# weights = { lexical = 0.5 }   # how much a leg counts; 1 where nothing is said
timeout = 30.0                  # seconds for a whole search
"""
_CHUNKS = """
# [chunks]                      # long documents become several rows; without this table a tower reads their beginning
# tokens = 256                  # the most of a chunk, its title among them; default: what the towers read
# overlap = 32                  # tokens before a chunk that are read with it
"""
_SOURCE = """
[source]
kind = "jsonl"
path = {path}           # JSON lines, a file or a folder: {{"_id": "a", "title": "…", "text": "…"}}
# dead_letters = "bad.jsonl"    # where lines go that cannot be stored; default: beside the file
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Space:
    """The two towers of one space, each with its folder."""

    document: tuple[Path, TowerSpec]
    query: tuple[Path, TowerSpec]


def template(towers: Sequence[Path], beside: Path, *, name: str, uri: str, source: str) -> str:
    """The file, as it would stand in the folder `beside`; the towers are sorted by space and by what they can do."""
    spaces = _spaces([(folder, TowerSpec.read(folder)) for folder in towers])
    parts = [_HEAD.format(name=_text(name))]
    encoders: dict[str, str] = {}
    for leg, space in _named(spaces).items():
        (document, spec), (query, _) = space.document, space.query
        told = {"document": _path(document, beside), "query": _path(query, beside)}
        unit = "terms" if spec.kind == "sparse" else "dimensions"
        parts.append(_SPACE.format(leg=leg, kind=spec.kind, dim=spec.dim, unit=unit, space_id=spec.space_id, **told))
        chosen = {"document": engine_of(document), "query": engine_of(query)}
        if any(engine != DEFAULT_ENGINE for engine in chosen.values()):
            parts.append(_TOWERS_APART.format(**{role: _text(engine) for role, engine in chosen.items()}))
            encoders |= {engine: engine for engine in chosen.values()}
    parts += [f"\n[encoders.{name}]\nengine = {_text(engine)}\n" for name, engine in sorted(encoders.items())]
    words = _OWN_WORDS if check(BackendSettings, {"uri": uri}, Path("--uri")).is_embedded else _NO_WORDS
    parts += [_BACKEND.format(uri=_text(uri), lexical=words), _SEARCH, _CHUNKS, _SOURCE.format(path=_text(source))]
    return "".join(parts)


def _spaces(towers: Sequence[tuple[Path, TowerSpec]]) -> list[_Space]:
    """The towers of each space: the one whose space it is fills it, the other answers queries."""
    grouped: dict[str, list[tuple[Path, TowerSpec]]] = {}
    for folder, spec in towers:
        grouped.setdefault(spec.space_id, []).append((folder, spec))
    found = []
    for space_id, members in grouped.items():
        fill = [each for each in members if "document" in each[1].roles]
        ask = [each for each in members if "query" in each[1].roles]
        fill.sort(key=lambda each: each[1].tower_id != space_id)
        if not fill or not ask:
            lacking = "query" if fill else "document"
            raise WrongUse(f"no {lacking} tower of space {space_id} is among the towers; give its folder too")
        document = fill[0]
        asking = [each for each in ask if each is not document] or [document]
        if len(asking) > 1:
            names = ", ".join(str(folder) for folder, _ in asking)
            raise WrongUse(f"more than one tower could answer queries in space {space_id}: {names}; give one of them")
        found.append(_Space(document=document, query=asking[0]))
    return found


def _named(spaces: Sequence[_Space]) -> dict[str, _Space]:
    """Each space by the name of its leg: its kind, numbered from the second one on."""
    named: dict[str, _Space] = {}
    for space in spaces:
        kind = space.document[1].kind
        number = sum(leg.split("_")[0] == kind for leg in named) + 1
        named[kind if number == 1 else f"{kind}_{number}"] = space
    return named


def _path(folder: Path, beside: Path) -> str:
    """As it is found from the file's own folder."""
    return _text(Path(os.path.relpath(folder.resolve(), beside.resolve())).as_posix())


def _text(value: str) -> str:
    """A TOML string; JSON's escapes are TOML's."""
    return json.dumps(value, ensure_ascii=False)
