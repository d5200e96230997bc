"""What Milvus' and gRPC's failures mean for the caller."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import grpc
from pymilvus import MilvusException
from pymilvus.exceptions import ConnectionConfigException

from bartizan_connector.base.address import without_password
from bartizan_connector.base.errors import BartizanError, Reject, Retry, Stop, WrongUse

_BUSY_CODES = frozenset({2, 3, 4, 7, 8, 9, 10, 101, 103})
"""Unavailable; out of memory, disk, quota or rate; late clock; not loaded (yet). From Milvus' merr package."""
_BUSY_RANGES = (range(400, 700), range(900, 1000))
"""Replicas, channels, segments and nodes that are moving, as after a restart."""
_INVALID_CODES = frozenset({6, 1100, 1101, 1102})
"""A parameter or a row is invalid: 6 in Milvus Lite, 11xx in a server."""
_MISSING_CODES = frozenset({100})
"""There is no such collection."""
_UNLOADED_CODES = frozenset({101, 103})
_UNLOADED_WORDS = ("not loaded", "not fully loaded")
"""The collection, or some of it, is not where it can be read."""
_STRANGER_CODES = frozenset({1400, grpc.StatusCode.UNAUTHENTICATED})
_DENIED_CODES = frozenset({1401, grpc.StatusCode.PERMISSION_DENIED})
"""The server knows the user, and does not let it do this."""

_BUSY_WORDS = (
    "timeout", "timed out", "deadline", "not loaded", "not ready", "unavailable", "no available", "not healthy",
    "failed to get delegator", "delegator closed", "channel not available", "node not found", "node not match",
    "not online", "fail connecting", "rate limit", "context canceled", "try again", "channel closed", "not serving",
)  # fmt: skip
"""A server before 2.4 gives most failures the one code 65535 and tells them apart in words only."""
_CONNECT_WORDS = "fail connecting"
"""What pymilvus says whatever the reason; the call that it made knows which: nothing listens, or the token is wrong."""
_TRACE = re.compile(r"stack trace: .*?(?=attempt #)")
"""Where in the server it failed comes before what failed, and is the longer of the two."""
_FULL_WORDS = ("no space left", "file too large", "disk quota", "disk full")
_OVERSIZE_WORDS = ("message larger than max", "exceed the limit size")
"""gRPC's words for a message, and a server's for an answer, that is too long to be sent."""
_TAKEN_CODES = frozenset({1602})
_TAKEN_WORDS = "already exist"
_STRANGER_WORDS = ("auth check failure", "unauthenticated", "not authenticated")
_DENIED_WORDS = ("permission deny",)

_BUSY_STATUS = frozenset({grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.ABORTED, grpc.StatusCode.CANCELLED})


@contextmanager
def calling(place: str, *, ids: Sequence[str] = ()) -> Iterator[None]:
    """Turn every failure of the calls inside into Retry, Reject (where `ids` are written), Stop or WrongUse."""
    try:
        yield
    except MilvusException as error:
        code, told = error.code, str(error.message)
        if _CONNECT_WORDS in told.lower() and (call := _call_behind(error)):
            code, told = call.code(), str(call.details())
        raise _meaning(place, code, told, ids, error) from error
    except grpc.RpcError as error:
        code = error.code() if isinstance(error, grpc.Call) else None
        details = error.details() if isinstance(error, grpc.Call) else None
        raise _meaning(place, code, details or str(error), ids, error) from error


def is_missing(error: BartizanError) -> bool:
    """Whether the call failed since there is no such collection."""
    return isinstance(error.__cause__, MilvusException) and error.__cause__.code in _MISSING_CODES


def is_away(error: BartizanError) -> bool:
    """Whether the call failed since nothing answers there: the server may have been killed."""
    cause = error.__cause__
    call = _call_behind(cause) if isinstance(cause, MilvusException) else cause
    return isinstance(call, grpc.Call) and call.code() == grpc.StatusCode.UNAVAILABLE


def is_unloaded(error: BartizanError) -> bool:
    """Whether the call failed since the server has not loaded the collection."""
    cause = error.__cause__
    if not isinstance(cause, MilvusException):
        return False
    return cause.code in _UNLOADED_CODES or any(word in str(cause.message).lower() for word in _UNLOADED_WORDS)


def is_oversize(error: BartizanError) -> bool:
    """Whether the call failed since what it would send or get is too long for one message."""
    return any(word in str(error) for word in _OVERSIZE_WORDS)


def is_taken(error: BartizanError) -> bool:
    """Whether an alias was not made since there is one of that name."""
    cause = error.__cause__
    return isinstance(cause, MilvusException) and (cause.code in _TAKEN_CODES or _TAKEN_WORDS in str(cause.message))


def _call_behind(error: MilvusException) -> grpc.Call | None:
    """pymilvus raises its errors again from themselves, which hides the cause but not the context."""
    behind = (error.__cause__, error.__context__)
    return next((each for each in behind if isinstance(each, grpc.Call)), None)


def _meaning(place: str, code: object, message: str, ids: Sequence[str], error: Exception) -> BartizanError:
    whole = _TRACE.sub("", without_password(" ".join(message.split())))
    told, words = whole[:500], whole.lower()
    if isinstance(error, ConnectionConfigException):
        return WrongUse(f"cannot use {place} as a Milvus address: {told}")
    if code in _STRANGER_CODES or any(word in words for word in _STRANGER_WORDS):
        return WrongUse(
            f"Milvus at {place} does not let us in: {told}. Set [backend] token_file, or the environment's "
            "BARTIZAN__BACKEND__TOKEN, or [backend] token, to user:password or an API key that it knows"
        )
    if code in _DENIED_CODES or any(word in words for word in _DENIED_WORDS):
        return WrongUse(
            f"Milvus at {place} does not let this user do it: {told}. Grant that user the privilege, or set "
            "[backend] token or token_file to another's"
        )
    if any(word in words for word in _OVERSIZE_WORDS):
        told = f"{told}. Write or ask for less at a time"
        return Reject(ids, f"Milvus at {place} refuses rows: {told}") if ids else Stop(f"Milvus at {place}: {told}")
    if code == grpc.StatusCode.UNAVAILABLE:
        return Retry(f"Milvus at {place} is unreachable: {told}. Is it running, and is [backend] uri its address?")
    if code in _BUSY_STATUS or code in _BUSY_CODES or any(code in codes for codes in _BUSY_RANGES):
        return Retry(f"Milvus at {place} is unreachable or busy: {told}")
    if code == grpc.StatusCode.UNIMPLEMENTED:
        return Stop(f"Milvus at {place} cannot do this, it is too old or too small: {told}")
    if type(error) is MilvusException and any(word in words for word in _BUSY_WORDS):
        return Retry(f"Milvus at {place} is unreachable or busy: {told}")
    if any(word in words for word in _FULL_WORDS):
        return Stop(f"Milvus at {place} has no room to write: {told}. Make room and run again: what was stored is kept")
    if ids and code in _INVALID_CODES:
        return Reject(ids, f"Milvus at {place} refuses rows: {told}")
    return Stop(f"Milvus at {place} failed: {told}")
