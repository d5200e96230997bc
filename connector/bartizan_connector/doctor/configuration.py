"""A configuration: the file, the towers it names, their spaces, the stored collection, the folders it writes to."""

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import get_args

from bartizan_connector.base.address import without_password
from bartizan_connector.base.errors import BartizanError, Retry, WrongUse
from bartizan_connector.config import Config
from bartizan_connector.config.settings import JsonlSettings
from bartizan_connector.config.towers import Pair, checked_pair, collection_of
from bartizan_connector.doctor.findings import Finding, parted, problem
from bartizan_connector.search.configured import open_words
from bartizan_connector.search.words.ownership import owner_of
from bartizan_connector.space.spec import Role
from bartizan_connector.stream.chunks import Cutter
from bartizan_connector.stream.jsonl import dead_letters_of
from bartizan_connector.stream.sources import open_source


def examine(path: Path) -> Iterator[Finding]:
    """What the commands would meet that use this file."""
    try:
        config = Config.load(path)
    except BartizanError as error:
        yield problem("config", error)
        return
    yield Finding(area="config", status="ok", what=str(path))
    yield from _source(config)
    yield from _writable(config)
    yield from _words(config)
    sound = True
    for leg in config.spaces:
        try:
            pair = checked_pair(config, leg)
        except BartizanError as error:
            yield problem("space", error, _area(config, "space", leg))
            sound = False
            continue
        yield Finding(area=_area(config, "space", leg), status="ok", what=pair.document.space_id)
        for role in get_args(Role):
            yield _tower(config, leg, role, pair)
    if sound:
        yield from _chunks(config)
        yield from _stored(config)


def _area(config: Config, kind: str, leg: str) -> str:
    """With several spaces, which one it is about."""
    return kind if len(config.spaces) == 1 else f"{kind} ({leg})"


def _tower(config: Config, leg: str, role: Role, pair: Pair) -> Finding:
    space, kind = config.spaces[leg], f"{role} tower"
    settings = config.encoder(space.encoder(role))
    try:
        encoder = settings.open(space.tower(role))
        try:
            vectors = encoder.encode(["a probe"], role)
        finally:
            encoder.close()
    except BartizanError as error:
        return problem(kind, error, _area(config, kind, leg))
    spec = pair.document if role == "document" else pair.query
    what = f"{spec.name} · {vectors.tower_id} · {settings.engine} · {spec.precision} · {spec.kind} {spec.dim}"
    return Finding(area=_area(config, kind, leg), status="ok", what=f"{what} · encodes ({vectors.tokens[0]} tokens)")


def _chunks(config: Config) -> Iterator[Finding]:
    """Whether the towers can be filled with chunks as they are asked for."""
    if config.chunks is None:
        return
    try:
        cut = Cutter.of(config).cut
    except BartizanError as error:
        yield problem("chunks", error)
        return
    assert cut is not None
    what = f"at most {cut.tokens} tokens, overlapping by {cut.overlap}, cut at the end of a {cut.at}"
    yield Finding(area="chunks", status="ok", what=what)


def _stored(config: Config) -> Iterator[Finding]:
    """The collection as it is stored, and what its store remarks."""
    try:
        collection = collection_of(config)
        backend = config.backend.open()
        try:
            store = backend.open(collection, create=False)
            remarks = list(store.remarks)
            store.close()
        finally:
            backend.close()
    except BartizanError as error:
        yield problem("collection", error)
        return
    place = without_password(config.backend.uri)
    spaces = "same space" if len(config.spaces) == 1 else "same spaces"
    yield Finding(area="collection", status="ok", what=f"{collection.name} at {place}, {spaces}")
    for remark in remarks:
        what, way_out = parted(without_password(remark))
        yield Finding(area="collection", status="note", what=what, way_out=way_out)


def _source(config: Config) -> Iterator[Finding]:
    """What ingest would read; a configuration that only searches needs none."""
    if config.source is None:
        return
    try:
        open_source(config).close()
    except BartizanError as error:
        yield problem("source", error)
        return
    yield Finding(area="source", status="ok", what=config.source.place)


def _writable(config: Config) -> Iterator[Finding]:
    places = {"word index": config.backend.words_folder}
    if isinstance(config.source, JsonlSettings):
        places["dead letters"] = config.source.dead_letters or dead_letters_of(config.source.path)
    if config.backend.is_file:
        places["vectors"] = config.backend.path
    for name, place in places.items():
        if place is None:
            continue
        is_folder = name == "word index" or (name == "vectors" and not config.backend.is_embedded)
        if obstacle := _obstacle(place, is_folder=is_folder):
            fix = "choose another path in the configuration"
            what = f"{place} cannot be written: {obstacle}"
            yield Finding(area=name, status="problem", what=what, way_out=fix, exit_code=WrongUse.exit_code)
            continue
        folder = _nearest(place)
        if os.access(folder, os.W_OK):
            yield Finding(area=name, status="ok", what=f"{place} can be written")
        else:
            fix = f"give this user write access to {folder}, or choose another path in the configuration"
            yield Finding(area=name, status="problem", what=f"{place} cannot be written", way_out=fix, exit_code=1)


def _nearest(place: Path) -> Path:
    """The path itself, or the folder that it would be made in."""
    return next(folder for folder in (place, *place.absolute().parents) if folder.exists())


def _obstacle(place: Path, *, is_folder: bool) -> str | None:
    """What stands there, or on the way, that is of the wrong kind."""
    nearest = _nearest(place)
    if nearest != place:
        return None if nearest.is_dir() else f"{nearest} is a file"
    if nearest.is_dir() == is_folder or not (nearest.is_dir() or nearest.is_file()):
        return None
    return "it is a file, where a folder should be" if is_folder else "it is a folder"


def _words(config: Config) -> Iterator[Finding]:
    """Whose the word index is; filled or not, it must be this collection's."""
    folder = config.backend.words_folder
    if folder is None:
        return
    try:
        open_words(config)
    except BartizanError as error:
        yield problem("words", error)
        return
    if not owner_of(folder):
        fix = "bartizan ingest fills it"
        yield Finding(area="words", status="note", what=f"there is no word index in {folder} yet", way_out=fix)
        return
    try:
        words = open_words(config)
        assert words is not None
        with closing(words):
            words.probe()
            unsettled = len(words.announced())
    except Retry as error:
        what, way_out = parted(str(error))
        yield Finding(area="words", status="note", what=what, way_out=way_out)
    except BartizanError as error:
        yield problem("words", error)
    else:
        what = f"{folder} belongs to collection '{config.collection.name}' and takes a commit"
        yield Finding(area="words", status="ok", what=what)
        if unsettled:
            fix = "bartizan ingest makes them agree before anything else; bartizan verify --repair too"
            what = f"a run was cut off at {unsettled:,} ids, of which they may not hold what is stored"
            yield Finding(area="words", status="note", what=what, way_out=fix)
