"""One address of Milvus, a file or a server: opened when first needed, named in every failure, left cleanly."""

import logging
from pathlib import Path
from urllib.parse import urlsplit

from pymilvus import MilvusClient

from bartizan_connector.base.address import without_password
from bartizan_connector.base.errors import WrongUse
from bartizan_connector.store.milvus.failures import calling

_CONNECT_SECONDS = 10.0


class Connection:
    """Holds the client; `timeout` (seconds) is the deadline of every single call."""

    def __init__(self, uri: str, token: str | None, timeout: float) -> None:
        self.file = None if "://" in uri else Path(uri).expanduser()
        self.place = without_password(uri)
        self.timeout = timeout
        if self.file is None:
            _check_address(uri, self.place)
        self._uri = uri
        self._token = token
        self._client: MilvusClient | None = None
        self._version = ""

    @property
    def is_open(self) -> bool:
        return self._client is not None

    @property
    def client(self) -> MilvusClient:
        if self._client is None:
            raise WrongUse(f"the back-end at {self.place} was closed; open it again")
        return self._client

    @property
    def version(self) -> str:
        """What the server says that it is; asked once."""
        if not self._version:
            with calling(self.place):
                self._version = str(self.client.get_server_version(timeout=self.timeout))
        return self._version

    def is_older_than(self, version: tuple[int, int]) -> bool:
        """Whether a server says so of itself; a Milvus Lite file never is."""
        if self.file is not None:
            return False
        numbers = self.version.lstrip("v").split("-")[0].split(".")[:2]
        return all(number.isdigit() for number in numbers) and tuple(map(int, numbers)) < version

    @property
    def is_absent(self) -> bool:
        """Whether it is a file that nobody has made yet."""
        return self.file is not None and not self.file.exists()

    def open(self, *, create: bool) -> None:
        """Connect, unless that has been done. `create=False` makes no new file."""
        if self._client is not None:
            return
        # pymilvus prints each failure with its whole traceback, and raises it too; it is told once, by us.
        logging.getLogger("pymilvus").setLevel(logging.CRITICAL)
        uri = self._uri
        if self.file is not None:
            from bartizan_connector.store.milvus import lite

            uri = lite.serve(self.file, create=create)
        try:
            with calling(self.place):
                seconds = min(self.timeout, _CONNECT_SECONDS)
                alone = self.file is not None  # under another port each time: what is shared would be kept for each
                self._client = MilvusClient(uri, token=self._token or "", timeout=seconds, dedicated=alone)
        except BaseException:
            self._leave_file()
            raise

    def has_room_to_flush(self) -> bool:
        """Whether a flush can be tried; a server sees to its own room."""
        if self.file is None:
            return True
        from bartizan_connector.store.milvus import lite

        return lite.has_room_to_flush(self.file)

    def sync_names(self) -> None:
        """Flush to disk which name stands for what: without its name nobody finds a collection."""
        if self.file is not None:
            from bartizan_connector.store.milvus import lite

            lite.sync_names(self.file)

    def close(self) -> None:
        """Let go; doing it twice is fine."""
        if self._client is None:
            return
        client, self._client = self._client, None
        try:
            with calling(self.place):
                client.close()
        finally:
            self._leave_file()

    def _leave_file(self) -> None:
        if self.file is not None:
            from bartizan_connector.store.milvus import lite

            lite.release(self.file)


def _check_address(uri: str, place: str) -> None:
    """What pymilvus would take for another address, or fail on with an error of its own."""
    try:
        parts = urlsplit(uri)
        is_complete = bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_complete = False
    if not is_complete:
        raise WrongUse(f"cannot use {place} as a Milvus address; write it like http://host:19530")
