"""What each failure of Milvus or gRPC means for the caller; the messages are ones that real servers gave."""

import grpc
import pytest
from pymilvus import MilvusException
from pymilvus.exceptions import ConnectionConfigException, DataNotMatchException, DescribeCollectionException

from bartizan_connector.base.errors import BartizanError, Reject, Retry, Stop, WrongUse
from bartizan_connector.store.milvus.failures import calling, is_missing, is_oversize, is_taken

PLACE = "http://milvus:19530"
TRACE = "stack trace: " + "\n".join(f"/milvus/internal/proxy/impl.go:{line} (*Proxy).Connect" for line in range(40))
AWAY = "context deadline exceeded"


class _Call(grpc.RpcError, grpc.Call):
    """What gRPC raises: an error that is also the call, and has its status."""

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__(details)
        self._code, self._details = code, details

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return self._details

    add_callback = cancel = initial_metadata = is_active = time_remaining = trailing_metadata = None  # type: ignore


@pytest.mark.parametrize(
    ("error", "meaning"),
    [
        (MilvusException(2, "Fail connecting to server on 127.0.0.1:1, illegal connection params"), Retry),
        (MilvusException(8, "rate limit exceeded"), Retry),
        (MilvusException(101, "collection not loaded[collection=4706]"), Retry),
        (MilvusException(503, "channel not available"), Retry),
        (MilvusException(901, "node not found"), Retry),
        (MilvusException(65535, "fail to search: failed to get delegator -1 for channel by-dev-dml_2"), Retry),
        (MilvusException(65535, "fail to Search, reason=delegator closed during wait tsafe"), Retry),
        (MilvusException(65535, "fail to Search: channel not available[channel=by-dev-dml_2]"), Retry),
        (MilvusException(65535, "context deadline exceeded"), Retry),
        (MilvusException(65535, f"{TRACE}: attempt #0: rpc error: code = DeadlineExceeded desc = {AWAY}"), Retry),
        (MilvusException(65535, f"{TRACE}: attempt #0: something else"), Stop),
        (MilvusException(1, "wait for loading collection timeout, collection: docs"), Retry),
        (MilvusException(grpc.StatusCode.UNAVAILABLE, "[search] Retry timeout: 2s, connection refused"), Retry),
        (_Call(grpc.StatusCode.UNAVAILABLE, "failed to connect to all addresses"), Retry),
        (_Call(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded"), Retry),
        (_Call(grpc.StatusCode.UNIMPLEMENTED, "unknown method TruncateCollection"), Stop),
        (_Call(grpc.StatusCode.RESOURCE_EXHAUSTED, "received message larger than max (73 vs. 67)"), Stop),
        (_Call(grpc.StatusCode.UNAUTHENTICATED, "bad token"), WrongUse),
        (_Call(grpc.StatusCode.PERMISSION_DENIED, "PrivilegeLoad: permission deny to reader"), WrongUse),
        (MilvusException(1400, "not authenticated"), WrongUse),
        (MilvusException(1401, "privilege not permitted"), WrongUse),
        (MilvusException(65535, "auth check failure, please check username and password are correct"), WrongUse),
        (ConnectionConfigException(message="Illegal uri: [nope://x]"), WrongUse),
        (DataNotMatchException(message="field `timeout` is missing"), Stop),
        (DescribeCollectionException(100, "collection 'docs' does not exist"), Stop),
        (MilvusException(65535, "cannot parse expression: a ==, error: invalid syntax"), Stop),
        (MilvusException(1, "[Errno 28] No space left on device"), Stop),
    ],
)
def test_a_failure_becomes_the_reaction_to_it_and_names_the_server(
    error: Exception, meaning: type[BartizanError]
) -> None:
    with pytest.raises(BartizanError, match=PLACE) as raised, calling(PLACE):
        raise error
    assert type(raised.value) is meaning
    assert raised.value.__cause__ is error


@pytest.mark.parametrize(
    ("cause", "meaning", "message"),
    [
        (_Call(grpc.StatusCode.UNAVAILABLE, "Connection refused"), Retry, "is unreachable: Connection refused. Is it"),
        (_Call(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded"), Retry, "unreachable or busy: Deadline"),
        (
            _Call(grpc.StatusCode.UNAUTHENTICATED, "missing authorization in header"),
            WrongUse,
            "does not let us in: miss",
        ),
        (ValueError("anything"), Retry, "Fail connecting"),
    ],
)
def test_why_a_connection_did_not_come_about_is_found_behind_what_pymilvus_says(
    cause: Exception, meaning: type[BartizanError], message: str
) -> None:
    """It says the same of all of them: illegal connection params or server unavailable."""
    with pytest.raises(meaning, match=message), calling(PLACE):
        raise MilvusException(2, "Fail connecting to server on 127.0.0.1:1, illegal connection params") from cause


def test_it_is_found_too_when_pymilvus_raises_its_error_again_from_itself() -> None:
    error = MilvusException(2, "Fail connecting to server on 127.0.0.1:1")
    error.__context__ = _Call(grpc.StatusCode.UNAVAILABLE, "Connection refused")
    with pytest.raises(Retry, match="is unreachable: Connection refused"), calling(PLACE):
        raise error from error


def test_a_stranger_and_a_user_without_the_privilege_are_told_what_to_set() -> None:
    with pytest.raises(WrongUse, match=r"token_file.*BARTIZAN__BACKEND__TOKEN.*user:password"), calling(PLACE):
        raise _Call(grpc.StatusCode.UNAUTHENTICATED, "missing authorization in header")
    with pytest.raises(WrongUse, match="Grant that user the privilege"), calling(PLACE):
        raise MilvusException(65535, "PrivilegeLoad: permission deny to reader")


def test_a_full_disk_is_told_with_the_way_out() -> None:
    with (
        pytest.raises(Stop, match=r"has no room to write: .*No space left on device\. Make room and run again"),
        calling(PLACE),
    ):
        raise MilvusException(1, "[Errno 28] No space left on device")


@pytest.mark.parametrize("code", [6, 1100])
def test_a_request_that_the_server_finds_invalid_is_a_reject_to_be_narrowed_down(code: int) -> None:
    """Which of its rows is at fault the server does not tell: see test_narrowing."""
    error = MilvusException(code, "VARCHAR field 'x' value length 700 exceeds max_length=600")
    with pytest.raises(Reject, match="max_length") as raised, calling(PLACE, ids=["a", "b"]):
        raise error
    assert raised.value.ids == ("a", "b")
    with pytest.raises(Stop), calling(PLACE):
        raise error


@pytest.mark.parametrize(
    "error",
    [
        _Call(grpc.StatusCode.RESOURCE_EXHAUSTED, "grpc: received message larger than max (73742304 vs. 67108864)"),
        MilvusException(
            65535, "fail to Query, QueryNode ID = 1: query results exceed the limit size : service internal"
        ),
    ],
)
def test_what_is_too_long_for_one_message_is_known_as_that_and_rejects_what_it_would_write(error: Exception) -> None:
    with pytest.raises(Stop, match="less at a time") as stopped, calling(PLACE):
        raise error
    assert is_oversize(stopped.value)
    with pytest.raises(Reject, match="less at a time"), calling(PLACE, ids=["a"]):
        raise error


@pytest.mark.parametrize(
    ("error", "missing", "taken"),
    [
        (MilvusException(100, "collection not found[collection=470735455857672232]"), True, False),
        (DescribeCollectionException(100, "collection 'docs' does not exist"), True, False),
        (MilvusException(1602, "docs is alias to another collection: alias already exist"), False, True),
        (MilvusException(1, "alias 'docs' already exists"), False, True),
        (MilvusException(1601, "alias and collection name conflict[database=default][alias=docs]"), False, False),
        (MilvusException(1, "alias 'docs' conflicts with an existing collection"), False, False),
        (MilvusException(65535, "context deadline exceeded"), False, False),
    ],
)
def test_what_is_missing_or_taken_is_told_from_the_rest(error: Exception, missing: bool, taken: bool) -> None:
    with pytest.raises(BartizanError) as raised, calling(PLACE):
        raise error
    assert (is_missing(raised.value), is_taken(raised.value)) == (missing, taken)


def test_what_is_no_failure_of_milvus_passes_unchanged() -> None:
    with pytest.raises(ZeroDivisionError), calling(PLACE):
        _ = 1 / 0


def test_what_a_server_says_is_told_without_the_trace_of_its_own_code() -> None:
    with pytest.raises(Retry, match=r"busy: attempt #0: context deadline exceeded$") as raised, calling(PLACE):
        raise MilvusException(65535, f"{TRACE}: attempt #0: {AWAY}")
    assert "impl.go" not in str(raised.value)
