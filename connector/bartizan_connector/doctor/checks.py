"""What `bartizan doctor` looks at: each check is a function that yields findings, each finding says what to do."""

import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution, requires, version
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement

from bartizan_connector.base.address import without_password
from bartizan_connector.base.claim import owner_of
from bartizan_connector.base.errors import BartizanError
from bartizan_connector.config import Config
from bartizan_connector.opening import (
    checked_spec,
    collection_of,
    engine_of,
    load_encoder,
    open_backend,
    open_source,
    open_words,
    tower_folder,
)
from bartizan_connector.space.spec import Role, TowerSpec
from bartizan_connector.store.collection import Collection
from bartizan_connector.stream.jsonl import dead_letters_of

DISTRIBUTION = "bartizan-search"
EXTRAS = ("local", "stream", "serve", "train", "gpu")

CLASHES = {"faiss-gpu": "faiss-cpu", "milvus-lite": "faiss-gpu"}
"""Package → the one it must not share an environment with (docs/decisions/004); milvus-lite brings faiss-cpu."""
WAYS_OUT = {
    "config": "correct the file, or name another by --config; docs/configuration.md lists every key",
    "source": "correct [source] path, or put the documents there",
    "words": "see that the folder can be read and written, or set [backend] lexical to another",
    "space": "point [space] document_tower and query_tower at towers or exports that were made together",
    "document tower": "export the tower again, or correct [space] document_tower and [encoder] document_engine",
    "query tower": "export the tower again, or correct [space] query_tower and [encoder] engine",
    "collection": "see what is at [backend] uri, and in its log; if nothing is wanted there, ingest into another",
}
"""What to do about a problem whose error does not say it."""

Status = Literal["ok", "note", "problem"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One fact about this installation, and the way out when it is a problem."""

    area: str
    status: Status
    what: str
    way_out: str = ""
    exit_code: int = 0


def installation() -> Iterator[Finding]:
    """Python, Bartizan, its extras, and packages that overwrite each other."""
    python = ".".join(map(str, sys.version_info[:3]))
    yield Finding(area="python", status="ok", what=f"{python} at {sys.executable}")
    yield Finding(area="bartizan", status="ok", what=version(DISTRIBUTION))
    for extra in EXTRAS:
        missing = list(_missing(extra))
        if missing:
            fix = _advice(extra, missing)
            yield Finding(area=f"extra {extra}", status="note", what=f"without {', '.join(missing)}", way_out=fix)
        else:
            yield Finding(area=f"extra {extra}", status="ok", what="complete")
    yield from _faiss()


def configuration(path: Path) -> Iterator[Finding]:
    """The file, the towers it names, their spaces, the stored collection, the folders that are written to."""
    try:
        config = Config.load(path)
    except BartizanError as error:
        yield _problem("config", error)
        return
    yield Finding(area="config", status="ok", what=str(path))
    yield from _source(config)
    yield from _writable(config)
    yield from _words(config)
    try:
        spec = checked_spec(config, "query")
    except BartizanError as error:
        yield _problem("space", error)
        return
    yield Finding(area="space", status="ok", what=spec.space_id)
    roles: tuple[Role, ...] = ("document", "query")
    for role in roles:
        yield _tower(config, role)
    yield _stored(config, collection_of(config, spec))


def _tower(config: Config, role: Role) -> Finding:
    folder = tower_folder(config, role)
    area = f"{role} tower"
    try:
        encoder = load_encoder(folder, engine_of(config, role), threads=1)
        vectors = encoder.encode(["a probe"], role)
        encoder.close()
    except BartizanError as error:
        return _problem(area, error)
    spec = TowerSpec.read(folder)
    what = f"{spec.name} · {spec.tower_id} · {engine_of(config, role)} · {spec.precision} · {spec.kind} {spec.dim}"
    return Finding(area=area, status="ok", what=f"{what} · encodes ({vectors.tokens[0]} tokens)")


def _stored(config: Config, collection: Collection) -> Finding:
    try:
        backend = open_backend(config)
        try:
            backend.ensure(collection, create=False)
        finally:
            backend.close()
    except BartizanError as error:
        return _problem("collection", error)
    place = without_password(config.backend.uri)
    return Finding(area="collection", status="ok", what=f"{collection.name} at {place}, same space")


def _source(config: Config) -> Iterator[Finding]:
    """What ingest would read; a configuration that only searches needs none."""
    if config.source is None:
        return
    try:
        open_source(config).close()
    except BartizanError as error:
        yield _problem("source", error)
        return
    yield Finding(area="source", status="ok", what=str(config.source.path))


def _writable(config: Config) -> Iterator[Finding]:
    places = {"word index": config.backend.lexical}
    if config.source:
        places["dead letters"] = config.source.dead_letters or dead_letters_of(config.source.path)
    if config.backend.kind == "milvus" and "://" not in config.backend.uri:
        places["vectors"] = Path(config.backend.uri)
    for name, place in places.items():
        if place is None:
            continue
        folder = next(folder for folder in (place, *place.absolute().parents) if folder.exists())
        if os.access(folder, os.W_OK):
            yield Finding(area=name, status="ok", what=f"{place} can be written")
        else:
            fix = f"give this user write access to {folder}, or choose another path in the configuration"
            yield Finding(area=name, status="problem", what=f"{place} cannot be written", way_out=fix, exit_code=1)


def _words(config: Config) -> Iterator[Finding]:
    """Whose the word index is; filled or not, it must be this collection's."""
    folder = config.backend.lexical
    if folder is None:
        return
    try:
        open_words(config)
    except BartizanError as error:
        yield _problem("words", error)
        return
    if owner_of(folder):
        yield Finding(area="words", status="ok", what=f"{folder} belongs to collection '{config.space.collection}'")
    else:
        fix = "bartizan ingest fills it"
        yield Finding(area="words", status="note", what=f"there is no word index in {folder} yet", way_out=fix)


def _problem(area: str, error: BartizanError) -> Finding:
    """What is wrong and what to do about it, apart; every kind of problem has a way out."""
    what, way_out = _parted(str(error), error.way_out)
    return Finding(area=area, status="problem", what=what, way_out=way_out or WAYS_OUT[area], exit_code=error.exit_code)


def _parted(told: str, way_out: str) -> tuple[str, str]:
    """A message ends with its way out: as a part of its own, as a sentence, or after a semicolon."""
    if way_out:
        return told.removesuffix(way_out).rstrip(" .;:"), way_out
    *before, last = re.split(r"\. (?=[A-Z])", told)
    if before:
        return ". ".join(before), last
    what, _, last = told.rpartition("; ")
    return (what, last) if what else (told, "")


def _advice(extra: str, missing: list[str]) -> str:
    """How to have the extra; what would bring the other build of faiss is not advised for this environment."""
    fix = f"pip install 'bartizan-search[{extra}]'"
    for package in missing:
        if package in CLASHES and _installed(CLASHES[package]):
            return f"if you need it, make another environment: {CLASHES[package]} is in this one. There: {fix}"
    return f"if you need it: {fix}"


def _missing(extra: str) -> Iterator[str]:
    """Packages that the extra needs and that are not installed."""
    for line in requires(DISTRIBUTION) or ():
        requirement = Requirement(line)
        if requirement.marker is None or not requirement.marker.evaluate({"extra": extra}):
            continue
        if requirement.name == DISTRIBUTION:
            for inner in requirement.extras:
                yield from _missing(inner)
        elif not _installed(requirement.name):
            yield requirement.name


def _faiss() -> Iterator[Finding]:
    """faiss-cpu and faiss-gpu own the same folder: the one installed last wins, silently."""
    if _installed("faiss-cpu") and _installed("faiss-gpu"):
        fix = "pip uninstall faiss-cpu faiss-gpu, then pip install --force-reinstall the one this environment is for"
        what = "faiss-cpu and faiss-gpu are both installed and overwrite each other"
        yield Finding(area="faiss", status="problem", what=what, way_out=fix, exit_code=1)
    elif (_installed("faiss-cpu") or _installed("faiss-gpu")) and find_spec("faiss") is None:
        fix = "pip install --force-reinstall --no-deps faiss-cpu (or faiss-gpu)"
        what = "the package is registered, but its folder is gone"
        yield Finding(area="faiss", status="problem", what=what, way_out=fix, exit_code=1)


def _installed(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True
