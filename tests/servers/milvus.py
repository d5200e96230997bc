"""The Milvus server of the tests; skipped aloud where it cannot run."""

from pathlib import Path

from bartizan_connector.base.errors import Stop
from bartizan_training.demo.servers.milvus import ROOT_TOKEN, MilvusServer
from bartizan_training.demo.servers.milvus import milvus_server as started
from tests.needs import unavailable

__all__ = ["ROOT_TOKEN", "MilvusServer", "milvus_server"]


def milvus_server(folder: Path, binaries: Path, token: str = "") -> MilvusServer:
    """A started server with its data in `folder`; `binaries` is shared by several, as unpacking takes seconds."""
    try:
        return started(folder, binaries, token)
    except Stop as error:
        unavailable(str(error))
