"""A Triton server: is it reachable, which towers does it serve, and is anything set that stalls or misleads?"""

import os
from collections.abc import Iterator
from typing import Any

from bartizan_connector.base.errors import BartizanError, Stop
from bartizan_connector.doctor.findings import Finding, parted
from bartizan_connector.encode.triton.calls import Access, Server, grpc, translated
from bartizan_connector.encode.triton.contract import served_spec, served_version

TOKEN = "BARTIZAN_TRITON_TOKEN"
_SECONDS = 5.0
_NO_QUEUE_POLICY = (
    "take default_queue_policy, priority_queue_policy and priority_levels out of config.pbtxt, or export the tower "
    "anew: with any of them Triton's batcher lets requests wait half a second now and then"
)
_NO_CACHE = "take response_cache out of config.pbtxt: it gives old answers after a version's files were changed"


def examine(url: str) -> Iterator[Finding]:
    """The server at that address, and each model in its repository."""
    try:
        server = Server(Access(url=url, token=os.environ.get(TOKEN) or None))
    except BartizanError as error:
        yield _problem(f"server {url}", error)
        return
    try:
        about = server.about(_SECONDS).do()
        index = server.index(_SECONDS).do()
        yield Finding(area="server", status="ok", what=f"{url} · {about.name} {about.version}")
        ready: dict[str, list[int]] = {}
        for entry in index.models:
            numbers = ready.setdefault(entry.name, [])
            if entry.state == "READY" and entry.version.isdigit():
                numbers.append(int(entry.version))
            elif entry.reason and entry.reason != "unloaded":
                yield _failed(entry)
        for name, numbers in sorted(ready.items()):
            yield from _model(server, name, numbers)
    except grpc.RpcError as error:
        yield _problem("server", translated(error, url, "what it is"))
    finally:
        server.close()


def _model(server: Server, name: str, ready: list[int]) -> Iterator[Finding]:
    area = f"model {name}"
    if not ready:
        fix = "bartizan deploy loads its newest version"
        yield Finding(area=area, status="note", what="is in the repository, but not loaded", way_out=fix)
        return
    config = server.config(name, _SECONDS).do().config
    parameters = {key: value.string_value for key, value in config.parameters.items()}
    version = served_version(parameters, ready)
    assert version is not None
    try:
        spec = served_spec(name, parameters, version)
    except Stop:
        yield Finding(area=area, status="note", what=f"version {version} is no tower of Bartizan's")
        return
    others = f" · also loaded: {', '.join(str(each) for each in sorted(ready) if each != version)}"
    yield Finding(
        area=area,
        status="ok",
        what=f"version {version} · {spec.tower_id} · space {spec.space_id} · {spec.kind} {spec.dim}, {spec.precision} "
        f"· {config.backend or config.platform}, batches of {config.max_batch_size}{others if len(ready) > 1 else ''}",
    )
    yield from _settings(area, config)


def _settings(area: str, config: Any) -> Iterator[Finding]:
    """What is set by hand, and should not be."""
    batching = config.dynamic_batching
    if batching.HasField("default_queue_policy") or batching.priority_levels or batching.priority_queue_policy:
        yield Finding(area=area, status="problem", what="has a queue policy", way_out=_NO_QUEUE_POLICY, exit_code=1)
    if config.response_cache.enable:
        yield Finding(area=area, status="problem", what="has a response cache", way_out=_NO_CACHE, exit_code=1)
    if not config.HasField("dynamic_batching"):
        fix = "add dynamic_batching { } to config.pbtxt: concurrent requests then share a batch"
        yield Finding(area=area, status="note", what="joins no requests", way_out=fix)
    if not config.version_policy.HasField("specific"):
        fix = "pin one: bartizan repo pin REPO MODEL VERSION"
        yield Finding(area=area, status="note", what="pins no version, so a restart may load another", way_out=fix)


def _failed(entry: Any) -> Finding:
    reason = " ".join(entry.reason.split())
    return Finding(
        area=f"model {entry.name}",
        status="problem",
        what=f"version {entry.version} is not ready: {reason:.300}",
        way_out="see the server's log; export the tower anew and deploy that, or pin an older version",
        exit_code=1,
    )


def _problem(area: str, error: BartizanError) -> Finding:
    what, way_out = parted(str(error), error.way_out)
    fix = way_out or "start the server, or correct the address"
    return Finding(area=area, status="problem", what=what, way_out=fix, exit_code=error.exit_code)
