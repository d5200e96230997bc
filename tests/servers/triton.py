"""The real Triton server that a wheel carries: a process of its own on loopback, with the Python backend only.

`python -m tests.servers.triton REPO` serves a model repository until it is interrupted (make triton REPO=…).
"""

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from bartizan_training.demo.servers.ports import free_ports
from tests.needs import unavailable
from tests.servers.environments import made

ROOT = Path(__file__).parents[2]
ENVIRONMENT = ROOT / ".venv-triton"
_START_SECONDS = 60.0
_STOP_SECONDS = 10.0


class TritonServer:
    """A server in explicit mode on a model repository; it loads every model that is there when it starts."""

    def __init__(self, repository: Path, *, options: Sequence[str] = ()) -> None:
        self.repository = repository
        self._options = tuple(options)
        self._process: subprocess.Popen[bytes] | None = None
        self.grpc_port, self.http_port, self._metrics_port = free_ports(3)

    @property
    def url(self) -> str:
        """Where its gRPC service listens."""
        return f"grpc://127.0.0.1:{self.grpc_port}"

    @property
    def log(self) -> Path:
        """What it said."""
        return self.repository.parent / f"{self.repository.name}.triton.log"

    @property
    def pid(self) -> int:
        """The running process."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start the process and wait until it is ready."""
        python, site, libraries = _installed()
        inside = site / "pytriton" / "tritonserver"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")} | {
            "LD_LIBRARY_PATH": f"{site / 'nvidia_pytriton.libs'}:{libraries}",
            "PYTHONPATH": str(site),
            "PATH": f"{python.parent}:{os.environ.get('PATH', '')}",
            "OMP_NUM_THREADS": "1",
        }
        ports = {"grpc": self.grpc_port, "http": self.http_port, "metrics": self._metrics_port}
        command = [
            str(inside / "bin" / "tritonserver"),
            f"--model-repository={self.repository}",
            f"--backend-directory={inside / 'backends'}",
            "--model-control-mode=explicit",
            "--load-model=*",
            "--strict-readiness=false",
            "--exit-on-error=false",
            "--allow-metrics=true",
            *(f"--{name}-address=127.0.0.1" for name in ports),
            *(f"--{name}-port={port}" for name, port in ports.items()),
            *self._options,
        ]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        self._wait_until_ready()

    def kill(self) -> None:
        """Kill -9: no farewell to clients."""
        self._end_the_group()
        self._process = None

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
        self._process.send_signal(signal.SIGCONT)
        self._process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_STOP_SECONDS)
        self._end_the_group()
        self._process = None

    def wait(self) -> None:
        """Until the process ends by itself."""
        assert self._process is not None
        self._process.wait()

    def _end_the_group(self) -> None:
        """The server and what it started: a Python model is a process of its own, which outlives a killed server."""
        assert self._process is not None
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            assert self._process is not None
            if self._process.poll() is not None:
                unavailable(f"the Triton server ended with {self._process.returncode}; see {self.log}")
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}/v2/health/ready", timeout=2):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.05)
        unavailable(f"the Triton server at {self.url} was not ready within {_START_SECONDS:.0f} s; see {self.log}")


def _installed() -> tuple[Path, Path, Path]:
    """The server's Python, its packages, and the folder of that Python's own library; made when they are missing."""
    if sys.platform != "linux":
        unavailable("the wheel with the Triton server has no build for this platform")
    if wrong := made("triton-env"):
        unavailable(wrong)
    python = ENVIRONMENT / "bin" / "python"
    ask = "import sysconfig; print(sysconfig.get_path('purelib'), sysconfig.get_config_var('LIBDIR'), sep='\\n')"
    site, libraries = subprocess.run([python, "-c", ask], capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )[:2]
    return python, Path(site), Path(libraries)


def main() -> None:
    """Serve the repository that is named, until interrupted."""
    if len(sys.argv) != 2:
        sys.exit("make triton REPO=folder: the model repository to serve")
    server = TritonServer(Path(sys.argv[1]).resolve())
    server.start()
    print(f"{server.url}  (HTTP {server.http_port}, log {server.log})", flush=True)
    try:
        server.wait()
    except KeyboardInterrupt:
        server.stop()


if __name__ == "__main__":
    main()
