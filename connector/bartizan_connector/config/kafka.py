"""`[source] kind = "kafka"`: a topic whose records are documents, and how the brokers let us in."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, SecretStr, model_validator

from bartizan_connector.base.errors import WrongUse
from bartizan_connector.base.tables import Table
from bartizan_connector.store.settings import Seconds

TopicName = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,249}$")]
Mechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]


class KafkaSettings(Table):
    """One topic, read by every worker of the group together."""

    kind: Literal["kafka"]
    bootstrap: Annotated[str, Field(min_length=1)]
    """`host:port`, several parted by commas."""
    topic: TopicName
    group: Annotated[str, Field(min_length=1)]
    """Workers of one group share the partitions; what a group has committed, it does not read again."""
    dead_letters: TopicName | None = None
    """The topic of records that cannot be written; default: `<topic>.DLQ`."""
    decoder: str = "json"
    """What the values are: `json`, `debezium`, or a decoder of another package."""
    version_header: str | None = None
    """The header that holds the record's own version in digits, where the values have no `_version`."""
    batch_size: Annotated[int, Field(ge=1, le=1000)] = 256
    session_timeout: Annotated[Seconds, Field(ge=0.5)] = 15.0
    """Seconds of silence after which a worker counts as dead, and its partitions go to others."""
    connect_timeout: Seconds = 10.0
    """Seconds within which a broker must answer at the start."""
    tls: bool = False
    ca: Path | None = None
    """TLS: certificates to trust instead of the system's."""
    certificate: Path | None = None
    key: Path | None = None
    """TLS: the worker's own certificate and its key, where the brokers ask for one."""
    sasl: Mechanism | None = None
    user: str | None = None
    password: SecretStr | None = None
    password_file: Path | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if not self.tls and (self.ca or self.certificate or self.key):
            raise ValueError("ca, certificate and key are for TLS: set tls = true, or leave them out")
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key belong together: give both, or neither")
        if self.password and self.password_file:
            raise ValueError("give password or password_file, not both")
        if bool(self.sasl) != bool(self.user) or bool(self.sasl) != bool(self.password or self.password_file):
            raise ValueError("sasl, user and password (or password_file) belong together: give all of them, or none")
        if self.dead_letters == self.topic:
            raise ValueError("dead_letters is the topic itself: every one of them would be read again; give another")
        return self

    def beside(self, folder: Path) -> Self:
        """The same with relative paths taken from `folder`."""
        paths = ("ca", "certificate", "key", "password_file")
        return self.model_copy(update={name: folder / path for name in paths if (path := getattr(self, name))})

    @property
    def place(self) -> str:
        """What is read, for people."""
        return f"topic {self.topic} at {self.bootstrap}"

    @property
    def letters(self) -> str:
        """The topic of the dead letters."""
        return self.dead_letters or f"{self.topic}.DLQ"

    def secret(self) -> str | None:
        """The password, read where it is needed and never kept elsewhere."""
        if self.password_file:
            try:
                return self.password_file.read_text(encoding="utf-8").strip()
            except OSError as error:
                raise WrongUse(f"cannot read password_file {self.password_file}: {error.strerror}") from error
        return self.password.get_secret_value() if self.password else None
