"""A real Milvus server: a process of its own on loopback, waited for by a real query, stopped by pid."""

import json
import os
import signal
import subprocess
import time
from importlib.util import find_spec
from pathlib import Path

from bartizan_connector.base.errors import Stop, WrongUse
from bartizan_training.demo.servers.ports import free_ports

_START_SECONDS = 120.0
_CHANNELS = "64"
"""In the server's log. Of two collections that share one, it may lose what was written into the one, when it is killed
twice within a minute and the other was idle (docs/decisions/029); by default there are 16."""
_STOP_SECONDS = 3.0
"""The server needs up to half a minute to end by itself; its data are thrown away."""
ROOT_TOKEN = "root:Milvus"
"""What a Milvus server that wants a token knows from the beginning."""


class MilvusServer:
    """The Milvus server that the PyPI package `milvus` carries; its data outlive `kill`, a later `start` finds them."""

    def __init__(self, folder: Path, binaries: Path, token: str = "") -> None:
        self._folder = folder
        self._token = token
        self._binaries = binaries
        self._process: subprocess.Popen[bytes] | None = None
        self._metrics_port = 0
        self.uri = ""

    def start(self) -> None:
        """Start the process on the data of this folder and wait until a query answers."""
        if not self.uri:
            self._configure()
        environment = os.environ | {
            "DEPLOY_MODE": "STANDALONE",
            "ROOTCOORD_DMLCHANNELNUM": _CHANNELS,
            "METRICS_PORT": str(self._metrics_port),
            "MILVUS_RUN_DIR": str(self._folder / "run"),
            "ETCD_CONFIG_PATH": str(self._folder / "etcd.yaml"),
            "LD_LIBRARY_PATH": str(self._binaries / "bin"),
        }
        with (self._folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._binaries / "bin" / "milvus", "run", "standalone"],
                cwd=self._folder,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self._wait_for_a_query()

    def kill(self) -> None:
        """Kill -9: no flush, no farewell."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._process = None

    @property
    def is_running(self) -> bool:
        return self._process is not None

    def pause(self) -> None:
        """Living, but it answers nothing until `resume`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Go on where it was paused."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """Ask the process to end; kill it when it does not."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def _configure(self) -> None:
        import milvus

        names = (
            "etcd", "root_coord", "proxy", "proxy_internal", "query_coord", "query_node", "index_coord", "index_node",
            "data_coord", "data_node",
        )  # fmt: skip
        self._metrics_port, peer_port, client_port, *ports = free_ports(3 + len(names))
        by_name = {f"{name}_port": port for name, port in zip(names, ports, strict=True)}
        config = milvus.MilvusServerConfig(data_dir=str(self._folder), **by_name)
        config.set("authorization_enabled", bool(self._token))
        config.resolve()
        milvus._initialize_data_files(self._binaries)
        peer, client = f"http://127.0.0.1:{peer_port}", f"http://127.0.0.1:{client_port}"
        etcd = {
            "listen-peer-urls": peer,
            "listen-client-urls": client,
            "advertise-client-urls": client,
            "initial-advertise-peer-urls": peer,
            "initial-cluster": f"default={peer}",
        }  # without them the etcd inside takes 2379 and 2380, whatever the main configuration says
        (self._folder / "etcd.yaml").write_text(json.dumps(etcd), encoding="utf-8")
        self.uri = f"http://127.0.0.1:{by_name['proxy_port']}"

    def _wait_for_a_query(self) -> None:
        """A health page says yes long before collections can be searched, so a collection of our own is asked."""
        import grpc
        from pymilvus import DataType, MilvusClient, MilvusException

        deadline = time.monotonic() + _START_SECONDS
        failure: Exception | None = None
        while time.monotonic() < deadline:
            assert self._process is not None
            if self._process.poll() is not None:
                raise Stop(f"the Milvus server ended with {self._process.returncode}; see {self._folder}/server.log")
            try:
                client = MilvusClient(self.uri, token=self._token, timeout=5)
                if not client.has_collection("readiness", timeout=5):
                    schema = MilvusClient.create_schema()
                    schema.add_field("id", DataType.INT64, is_primary=True)
                    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=2)
                    index = MilvusClient.prepare_index_params("vector", index_type="FLAT", metric_type="IP")
                    client.create_collection("readiness", schema=schema, index_params=index, timeout=30)
                client.query("readiness", filter="id >= 0", timeout=5)
            except (MilvusException, grpc.RpcError) as error:
                failure = error
                time.sleep(0.3)
            else:
                client.close()
                return
        raise Stop(f"the Milvus server at {self.uri} answered no query within {_START_SECONDS:.0f} s: {failure}")


def is_installed() -> bool:
    """Whether the package that carries the server is there."""
    return find_spec("milvus") is not None


def milvus_server(folder: Path, binaries: Path, token: str = "") -> MilvusServer:
    """A started server with its data in `folder`; `binaries` is shared by several, as unpacking takes seconds. With
    `token` (ROOT_TOKEN) it wants one of everybody."""
    if not is_installed():
        raise WrongUse("the package 'milvus' (the server) is not installed here: pip install milvus==2.3.5")
    folder.mkdir(parents=True, exist_ok=True)
    binaries.mkdir(parents=True, exist_ok=True)
    server = MilvusServer(folder, binaries, token)
    try:
        server.start()
    except BaseException:
        server.stop()
        raise
    return server
