"""Calls on a Triton server: one long-lived channel, and gRPC's failures in Bartizan's words."""

import asyncio
import time
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from bartizan_connector.base.errors import BartizanError, Retry, Stop, WrongUse, missing_extra

try:
    import grpc
    from tritonclient.grpc import service_pb2, service_pb2_grpc
except ImportError as error:
    raise missing_extra("tritonclient", "triton") from error

__all__ = [
    "Access", "Call", "Pause", "Server", "Talk", "adrive", "drive", "grpc", "may_pass", "service_pb2", "translated",
]  # fmt: skip

_BEARER = "authorization"
PLAIN, SECURE = "grpc://", "grpcs://"
_CHANNEL = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # A dead peer shows after a minute without data in a call; more pings would make Triton close the connection.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.max_pings_without_data", 2),
    # A server that was restarted is found again at once.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.enable_retries", 0),  # the engine asks again by itself: it looks at what is served first
)
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Where a server is, and how one is let in."""

    url: str
    """`grpc://host:port`, or `grpcs://` for TLS."""
    token: str | None = field(default=None, repr=False)
    """What whoever guards the server wants to see."""
    token_header: str = _BEARER
    """There it is a bearer token; in any other header (Triton's own are `triton-grpc-protocol-KEY`) it stands bare."""
    ca: Path | None = None
    """Certificates to trust instead of the system's."""
    certificate: Path | None = None
    key: Path | None = None
    """The client's own, where the server asks for one."""

    def __post_init__(self) -> None:
        if not self.url.startswith((PLAIN, SECURE)) or ":" not in self.target or "@" in self.target:
            raise WrongUse(f"a Triton server's address is grpc://host:port or grpcs://host:port; {self.url!r} came")
        if not self.secure and (self.ca or self.certificate or self.key):
            raise WrongUse(f"certificates are given for {self.url}, which is no TLS address; expected grpcs://")
        if bool(self.certificate) != bool(self.key):
            raise WrongUse("a client's certificate needs its key, and a key its certificate; give both")

    @property
    def secure(self) -> bool:
        """Whether the connection is encrypted."""
        return self.url.startswith(SECURE)

    @property
    def target(self) -> str:
        """Host and port."""
        return self.url.removeprefix(PLAIN).removeprefix(SECURE).rstrip("/")

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What goes with each call."""
        if not self.token:
            return ()
        header = self.token_header.lower()
        return ((header, f"Bearer {self.token}" if header == _BEARER else self.token),)


class Step(Protocol):
    """Something to wait for, in a thread or in an event loop."""

    def do(self) -> Any: ...
    async def ado(self) -> Any: ...


Talk = Generator[Step, Any, T]
"""What an engine does, one wait after the other; the same for threads and for event loops."""


@dataclass(frozen=True, slots=True)
class Call:
    """One remote call with its own deadline, in seconds from now. Waits for a connection as long."""

    method: Any
    request: Any
    timeout: float
    metadata: tuple[tuple[str, str], ...] = ()

    def do(self) -> Any:
        """In this thread."""
        return self.method(self.request, timeout=self.timeout, metadata=self.metadata, wait_for_ready=True)

    async def ado(self) -> Any:
        """In the event loop; a cancelled task cancels the call on the server too."""
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        call = self.method.future(self.request, timeout=self.timeout, metadata=self.metadata, wait_for_ready=True)

        def answered() -> None:
            if not done.done():
                done.set_result(None)

        def finished(_: Any) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(answered)

        call.add_done_callback(finished)
        try:
            await done
        finally:
            if not call.done():
                call.cancel()
        return call.result()


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait before asking again."""

    seconds: float

    def do(self) -> None:
        """In this thread."""
        time.sleep(self.seconds)

    async def ado(self) -> None:
        """In the event loop."""
        await asyncio.sleep(self.seconds)


def drive(talk: "Talk[T]") -> T:
    """Every step in this thread."""
    step = next(talk)
    while True:
        try:
            try:
                came = step.do()
            except grpc.RpcError as error:
                step = talk.throw(error)
            else:
                step = talk.send(came)
        except StopIteration as end:
            result: T = end.value
            return result


async def adrive(talk: "Talk[T]") -> T:
    """Every step in the event loop."""
    step = next(talk)
    while True:
        try:
            try:
                came = await step.ado()
            except grpc.RpcError as error:
                step = talk.throw(error)
            else:
                step = talk.send(came)
        except StopIteration as end:
            result: T = end.value
            return result


class Server:
    """One channel to a server, shared by all threads; its calls as steps."""

    def __init__(self, access: Access) -> None:
        self.url = access.url
        self._channel = _channel(access)
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        self._metadata = access.metadata

    def about(self, timeout: float) -> Call:
        """What kind of server it is."""
        return Call(self._stub.ServerMetadata, service_pb2.ServerMetadataRequest(), timeout, self._metadata)

    def infer(self, request: Any, timeout: float) -> Call:
        """Run a model."""
        return Call(self._stub.ModelInfer, request, timeout, self._metadata)

    def config(self, model: str, timeout: float, version: str = "") -> Call:
        """A model's configuration."""
        request = service_pb2.ModelConfigRequest(name=model, version=version)
        return Call(self._stub.ModelConfig, request, timeout, self._metadata)

    def metadata(self, model: str, timeout: float) -> Call:
        """A model's ready versions and tensors."""
        return Call(self._stub.ModelMetadata, service_pb2.ModelMetadataRequest(name=model), timeout, self._metadata)

    def index(self, timeout: float) -> Call:
        """Every model of the repository, with the state of each version."""
        return Call(self._stub.RepositoryIndex, service_pb2.RepositoryIndexRequest(), timeout, self._metadata)

    def load(self, model: str, config: str | None, timeout: float) -> Call:
        """Load a model under this configuration (JSON), or under the one in its folder."""
        request = service_pb2.RepositoryModelLoadRequest(model_name=model)
        if config is not None:
            request.parameters["config"].string_param = config
        return Call(self._stub.RepositoryModelLoad, request, timeout, self._metadata)

    def unload(self, model: str, timeout: float) -> Call:
        """Serve no version of a model any more."""
        request = service_pb2.RepositoryModelUnloadRequest(model_name=model)
        return Call(self._stub.RepositoryModelUnload, request, timeout, self._metadata)

    def close(self) -> None:
        """Let the connection go. Closing twice is fine."""
        self._channel.close()


def translated(error: Any, url: str, what: str) -> BartizanError:
    """What a failed call means for the caller; `what` says what was asked."""
    code, details = error.code(), (error.details() or "no details").strip()
    refused = code is grpc.StatusCode.UNAVAILABLE and "restricted" in details  # Triton's own word for it
    if refused or code in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
        return WrongUse(
            f"{url} refuses {what}: {details}; give the token that it wants (token or token_file, token_header)"
        )
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return Retry(f"{url} did not answer {what} in time; is a Triton server listening there, and is it keeping up?")
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return Stop(f"what listens at {url} does not know {what}: expected the gRPC port of a Triton server")
    if code is grpc.StatusCode.NOT_FOUND:
        return WrongUse(f"{url} does not know {what}: {details}")
    if code in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.OUT_OF_RANGE):
        return Stop(f"{url} refuses {what}: {details}. Serve a model that `bartizan export --format triton` wrote")
    return Retry(f"{url} failed on {what} ({code.name}): {details}")


def may_pass(error: Any) -> bool:
    """Whether the same call may work a moment later."""
    if "restricted" in (error.details() or ""):
        return False
    return error.code() in (
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
    )


def _channel(access: Access) -> Any:
    if not access.secure:
        return grpc.insecure_channel(access.target, options=_CHANNEL)
    credentials = grpc.ssl_channel_credentials(
        root_certificates=_read(access.ca), private_key=_read(access.key), certificate_chain=_read(access.certificate)
    )
    return grpc.secure_channel(access.target, credentials, options=_CHANNEL)


def _read(path: Path | None) -> bytes | None:
    try:
        return path.read_bytes() if path else None
    except OSError as error:
        raise WrongUse(f"cannot read {path}: {error.strerror}") from error
