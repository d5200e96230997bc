"""Deploy: a new version is put into use on running servers, or nothing changes.

1 look at every server: is it reachable, and may the new tower stand in for the one that is served there?
2 load the new version beside the old one; clients stay with the old   3 judge it through each server, texts too
4 unload the old one: clients look again, and find the new   5 pin it in the repository.
Whatever fails before 4 unloads the new version everywhere; no request of a client fails at any step.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bartizan_connector.base.errors import BartizanError, Stop, WrongUse
from bartizan_connector.base.progress import progress
from bartizan_connector.encode.export import Export
from bartizan_connector.encode.onnx import OnnxEncoder
from bartizan_connector.encode.triton.calls import Access, Server, drive, grpc, translated
from bartizan_connector.encode.triton.contract import require_replacement, served_spec, served_version
from bartizan_connector.encode.triton.encoder import TritonEncoder
from bartizan_connector.space.spec import TowerSpec
from bartizan_connector.space.tokens import Tokens
from bartizan_triton.gate import Passed, batches_of, judge
from bartizan_triton.repository.config import as_json, model_config
from bartizan_triton.repository.pin import pin
from bartizan_triton.repository.shelf import Model, Version
from bartizan_triton.repository.text import TextModel, text_config, text_models
from bartizan_triton.text_gate import judge_texts

_CALL_SECONDS = 20.0
_LOAD_SECONDS = 600.0
Say = Callable[[str], None]


@dataclass(slots=True)
class _Place:
    """One server, and what it serves of the model before anything is changed."""

    access: Access
    server: Server
    before: int | None
    towers: dict[int, TowerSpec] = field(default_factory=dict)


def deploy(
    repository: Path, model: Model, version: Version, servers: Sequence[Access], *, say: Say, dry_run: bool = False
) -> Passed | None:
    """Put `version` of the model into use on all servers, which see the same repository."""
    if not servers:
        raise WrongUse("no server is named; give --server URL, once for each server")
    with ExitStack() as open_servers:
        places = []
        for access in servers:
            server = open_servers.enter_context(closing(Server(access)))
            places.append(_look(access, server, model, version))
            was = places[-1].before
            say(f"{access.url}: {_serving(model.name, was)}; version {version.number} ({version.spec.tower_id}) comes")
        if dry_run:
            return None
        try:
            for place in places:
                _load(place, model, version, {version.number, *([place.before] if place.before else [])})
            passed = [_judged(place, model, version) for place in places]
            texts = list(text_models(repository, model.name))
            for place in places:
                for found in texts:
                    _lead(place, found, version, version.number)
                    judge_texts(place.server, found, version.folder)
        except BaseException as error:
            _roll_back(places, repository, model, version, say)
            if isinstance(error, BartizanError):
                raise Stop(f"{error}. Version {version.number} was taken back; nothing else changed") from error
            raise
        for place in places:
            if place.before != version.number:
                _load(place, model, version, {version.number})
                say(f"{place.access.url}: version {version.number} of '{model.name}' is in use")
        pin(repository, model.name, version.number)
    return min(passed, key=lambda each: each.cosine)


def _look(access: Access, server: Server, model: Model, version: Version) -> _Place:
    """What is served there now; refused unless the new version may take its place."""
    try:
        metadata = drive(_step(server.metadata(model.name, _CALL_SECONDS)))
        config = drive(_step(server.config(model.name, _CALL_SECONDS))).config
    except grpc.RpcError as error:
        if error.code() is grpc.StatusCode.NOT_FOUND:
            return _Place(access, server, None)
        raise translated(error, access.url, f"what model '{model.name}' is") from error
    parameters = {key: value.string_value for key, value in config.parameters.items()}
    before = served_version(parameters, [int(number) for number in metadata.versions])
    if before is None:
        return _Place(access, server, None)
    spec = served_spec(model.name, parameters, before)
    what = f"version {version.number} of model '{model.name}' ({version.spec.tower_id})"
    require_replacement(what, before=spec, after=version.spec)
    return _Place(access, server, before, {before: spec})


def _load(place: _Place, model: Model, version: Version, serve: set[int]) -> None:
    """Let the server serve these versions. Clients are told the old one while it is among them."""
    towers = {**{number: each.spec for number, each in model.versions.items()}, **place.towers}
    current = place.before or version.number
    config = model_config(model.name, version.serving, towers, current=current, serve=sorted(serve))
    try:
        drive(_step(place.server.load(model.name, as_json(config), _LOAD_SECONDS)))
    except grpc.RpcError as error:
        details = " ".join((error.details() or "no details").split())
        if error.code() is grpc.StatusCode.UNAVAILABLE:
            raise translated(error, place.access.url, f"to load model '{model.name}'") from error
        raise Stop(
            f"{place.access.url} cannot load version {version.number} of model '{model.name}': {details:.500}. "
            "It needs the same repository, --model-control-mode=explicit, and the model's backend"
        ) from error


def _judged(place: _Place, model: Model, version: Version) -> Passed:
    """The new version through this server, beside the same export in this process."""
    export = Export.read(version.folder)
    tokens = Tokens.read(version.folder, version.spec)
    with (
        closing(OnnxEncoder.open(version.folder)) as reference,
        closing(
            TritonEncoder.open(place.access, tokens, version.spec, model=model.name, version=version.number)
        ) as served,
        progress(f"judging version {version.number} at {place.access.url}, batches", batches_of(version.spec)) as tick,
    ):
        return judge(served, reference, export, tick)


def _lead(place: _Place, found: TextModel, version: Version, number: int) -> None:
    """Let a model that takes texts ask that version."""
    config = text_config(found, version.spec, version.serving, number)
    try:
        drive(_step(place.server.load(found.text, as_json(config), _LOAD_SECONDS)))
    except grpc.RpcError as error:
        raise translated(error, place.access.url, f"to load model '{found.text}'") from error


def _roll_back(places: Sequence[_Place], repository: Path, model: Model, version: Version, say: Say) -> None:
    """Only what was served before; a server that cannot be reached any more is named, and the others are done."""
    texts = list(text_models(repository, model.name))
    for place in places:
        try:
            for found in texts:
                if place.before is None:
                    drive(_step(place.server.unload(found.text, _CALL_SECONDS)))
                else:
                    _lead(place, found, version, place.before)
            if place.before is None:
                drive(_step(place.server.unload(model.name, _CALL_SECONDS)))
            elif place.before != version.number:
                _load(place, model, version, {place.before})
        except (grpc.RpcError, BartizanError) as error:
            say(f"{place.access.url}: could not be taken back to what it served: {error}")


def _serving(model: str, before: int | None) -> str:
    return f"serves no '{model}' yet" if before is None else f"serves '{model}' version {before}"


def _step(call: Any) -> Any:
    """One call as a talk of its own."""
    return (yield call)
