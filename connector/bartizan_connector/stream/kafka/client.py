"""How brokers are reached, and what their refusals mean for the pipeline."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from bartizan_connector.base.errors import BartizanError, Retry, Stop, WrongUse, missing_extra
from bartizan_connector.config.kafka import KafkaSettings

try:
    import kafka
    from kafka import errors
    from kafka.admin import KafkaAdminClient
    from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
    from kafka.net.compat import KafkaNetClient
except ImportError as error:
    raise missing_extra("kafka-python", "stream") from error

__all__ = [
    "KafkaAdminClient",
    "consumer",
    "errors",
    "kafka",
    "leave",
    "opened",
    "partitions_of",
    "producer",
    "translating",
]

logging.getLogger("kafka").addHandler(logging.NullHandler())
"""An outage is told once, by the pipeline; the library's own words are there for whoever sets up logging."""
_BACK_SOON_MS = 1_000
"""The longest pause before a broker that was away is tried again; the library's own is half a minute."""
GROUP_SECONDS = 300.0
"""So long a member may take over a change of the group; then it is put out."""
_LARGEST_BYTES = 64 * 2**20
_REACHED = "is a broker listening there, does it speak TLS where tls is set, and are user, password and ca right?"


def _connection(settings: KafkaSettings) -> dict[str, Any]:
    """What every client of these brokers is told."""
    kind = "SSL" if settings.tls else "PLAINTEXT"
    told: dict[str, Any] = {
        "bootstrap_servers": [place.strip() for place in settings.bootstrap.split(",")],
        "bootstrap_timeout_ms": int(settings.connect_timeout * 1000),
        "client_id": "bartizan",
        "reconnect_backoff_max_ms": _BACK_SOON_MS,
        "security_protocol": f"SASL_{kind}" if settings.sasl else kind,
    }
    files = {"ssl_cafile": settings.ca, "ssl_certfile": settings.certificate, "ssl_keyfile": settings.key}
    for name, path in files.items():
        if path is not None and not path.is_file():
            raise WrongUse(f"there is no file {path}; [source] ca, certificate and key name PEM files")
        told |= {name: str(path)} if path else {}
    if settings.sasl:
        told |= {
            "sasl_mechanism": settings.sasl,
            "sasl_plain_username": settings.user,
            "sasl_plain_password": settings.secret(),
        }
    return told


def opened(kind: Callable[..., Any], settings: KafkaSettings, **told: Any) -> Any:
    """A client of the library. One that no broker answered is ended: the library lets its thread run on, and keeps its
    descriptors, so that the attempts of a long outage would use up what a process may open."""
    begun: list[Any] = []

    def net(**told: Any) -> Any:
        begun.append(KafkaNetClient(**told))
        return begun[-1]

    try:
        return kind(**_connection(settings), **told, kafka_client=net)
    except BaseException:
        for each in begun:
            each.close()
        raise


def consumer(settings: KafkaSettings) -> Any:
    """A member-to-be of the group. Offsets are committed by hand, and a place that is gone is never skipped over."""
    session = int(settings.session_timeout * 1000)
    return opened(
        kafka.KafkaConsumer,
        settings,
        group_id=settings.group,
        enable_auto_commit=False,
        auto_offset_reset="none",
        isolation_level="read_committed",
        partition_assignment_strategy=[CooperativeStickyAssignor],
        session_timeout_ms=session,
        heartbeat_interval_ms=max(100, session // 5),
        max_poll_interval_ms=int(GROUP_SECONDS * 1000),
        max_poll_records=settings.batch_size,
        allow_auto_create_topics=False,
    )


def producer(settings: KafkaSettings) -> Any:
    """For dead letters: idempotent, acknowledged by all replicas, large enough for whatever was read."""
    return opened(
        kafka.KafkaProducer,
        settings,
        max_request_size=_LARGEST_BYTES,
        max_block_ms=int(settings.connect_timeout * 1000),
        request_timeout_ms=10_000,
        delivery_timeout_ms=15_000,
        allow_auto_create_topics=False,
    )


def leave(member: Any, seconds: float) -> None:
    """Leave the group, if the brokers hear of it in time, and let go of everything; the library keeps its thread where
    leaving fails."""
    with suppress(errors.KafkaError):
        member.close(autocommit=False, timeout_ms=int(seconds * 1000))
    member._client.close()


def partitions_of(member: Any, topic: str, seconds: float) -> set[int]:
    """The numbers of a topic's partitions; none where there is no such topic. The library's own call waits for an
    answer for ever, which no signal ends."""
    cluster, net = member._cluster, member._net
    found = cluster.partitions_for_topic(topic)
    if found is None:
        if cluster.metadata_refresh_in_progress:  # which may have asked about other topics only
            net.run(member._manager.wait_for, cluster.request_update(), seconds * 1000)
        known = cluster.need_all_topic_metadata
        cluster.need_all_topic_metadata = True
        try:
            net.run(member._manager.wait_for, cluster.request_update(), seconds * 1000)
        finally:
            cluster.need_all_topic_metadata = known
        found = cluster.partitions_for_topic(topic)
    return set(found or ())


@contextmanager
def translating(what: str, settings: KafkaSettings) -> Iterator[None]:
    """The library's errors as what to do about them; `what` says what was tried."""
    try:
        yield
    except errors.KafkaError as error:
        raise translated(error, what, settings) from error


def translated(error: Exception, what: str, settings: KafkaSettings) -> BartizanError:
    """What a failure means for the pipeline."""
    told = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    if "Unable to bootstrap" in str(error):
        return Retry(f"no broker answered at {settings.bootstrap} within {settings.connect_timeout:g} s: {_REACHED}")
    if isinstance(error, errors.AuthorizationError):
        return WrongUse(
            f"{settings.bootstrap} refuses {what}: {told}. The worker reads and describes topic {settings.topic}, "
            f"reads group {settings.group}, and writes, describes and creates topic {settings.letters}"
        )
    if isinstance(error, errors.OffsetOutOfRangeError | errors.LogTruncationError):
        return Stop(
            f"what comes next for group {settings.group} is not in topic {settings.topic} any more ({told}): records "
            "were deleted before they were read, or the topic was made again. If the topic still holds every "
            "document, read it anew under another [source] group; what is stored already is not encoded again"
        )
    if isinstance(error, errors.UnknownTopicOrPartitionError | errors.InvalidTopicError):
        return WrongUse(f"{settings.bootstrap} knows no such topic ({what}): {told}")
    if isinstance(error, errors.MessageSizeTooLargeError):
        return Stop(f"{settings.bootstrap} refuses {what} for its size: {told}; raise max.message.bytes of that topic")
    if isinstance(error, errors.KafkaConfigurationError | errors.UnsupportedVersionError):
        return Stop(f"{what} cannot work with these brokers: {told}")
    return Retry(f"{settings.bootstrap} failed on {what}: {told}")
