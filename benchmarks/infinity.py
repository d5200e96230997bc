"""The rival of `triton_hop`: Infinity, an embedding server that pip installs, on the same weights.

It runs in an environment of its own (`make infinity-env`), takes texts by HTTP, tokenises and joins batches itself.
"""

import asyncio
import base64
import json
import os
import shutil
import subprocess
import time
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import onnx
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from transformers import AutoModel

from bartizan_connector.base.errors import Stop
from bartizan_connector.space.vectors import Floats
from bartizan_encoders.hub import locate
from bartizan_training.demo.servers.ports import free_ports
from tests.servers.environments import made

ROOT = Path(__file__).parents[1]
ENVIRONMENT = ROOT / ".venv-infinity"
_START_SECONDS = 120.0
_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
_STATES = "last_hidden_state"
_MODEL = "minilm"


def environment() -> Path:
    """The server's program; made when it is missing."""
    if wrong := made("infinity-env"):
        raise Stop(wrong)
    return ENVIRONMENT / "bin" / "infinity_emb"


def version() -> str:
    """Which Infinity is installed there."""
    ask = [ENVIRONMENT / "bin" / "python", "-c", "import importlib.metadata as m; print(m.version('infinity-emb'))"]
    return subprocess.run(ask, capture_output=True, text=True, check=True).stdout.strip()


def rival_model(folder: Path) -> None:
    """MiniLM as Infinity wants it: ONNX up to the last hidden states, in int8 as ONNX Runtime's own tool makes it."""
    source = locate("minilm")
    folder.mkdir(parents=True)
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"):
        shutil.copyfile(source / name, folder / name)
    ids = torch.tensor([[101, 7592, 2088, 102]] * 2)
    free = {name: {0: "batch", 1: "tokens"} for name in (*_INPUTS, _STATES)}
    whole = folder.with_suffix(".onnx")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _States(AutoModel.from_pretrained(source).eval()),
            (ids, torch.ones_like(ids), torch.zeros_like(ids)),
            whole,
            input_names=list(_INPUTS),
            output_names=[_STATES],
            dynamic_axes=free,
            opset_version=17,
            dynamo=False,
        )
        quantize_dynamic(onnx.load(whole), folder / "model.onnx", per_channel=True, weight_type=QuantType.QInt8)


class _States(torch.nn.Module):
    """The model with its inputs by position."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: torch.Tensor, mask: torch.Tensor, types: torch.Tensor) -> torch.Tensor:
        states = self.model(input_ids=ids, attention_mask=mask, token_type_ids=types).last_hidden_state
        assert isinstance(states, torch.Tensor)
        return states


@contextmanager
def running(model: Path) -> Iterator[int]:
    """The server on that model, and its port."""
    program = environment()
    (port,) = free_ports(1)
    command = [str(program), "v2", "--model-id", ".", "--served-model-name", _MODEL, "--engine", "optimum"]
    command += ["--device", "cpu", "--pooling-method", "mean", "--host", "127.0.0.1", "--port", str(port)]
    quiet = {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", "INFINITY_ANONYMOUS_USAGE_STATS": "0"}
    log = model.parent / "infinity.log"
    with log.open("wb") as said:
        process = subprocess.Popen(
            command, cwd=model, env=os.environ | quiet, stdout=said, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        _wait_until_ready(process, port, log)
        yield port
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)
        process.kill()
        process.wait()


def _wait_until_ready(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise Stop(f"Infinity did not become ready: {log.read_text(errors='replace').strip()[-500:]}")


class Asking:
    """One text a call, over connections that are kept; a bare HTTP client, so that no library's cost is the rival's."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def vector(self, text: str) -> Floats:
        """The vector of a text."""
        body = json.dumps({"model": _MODEL, "input": [text], "encoding_format": "base64"}).encode()
        head = (
            f"POST /embeddings HTTP/1.1\r\nhost: here\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
        )
        request = head.encode() + b"\r\n\r\n" + body
        while True:
            reused = bool(self._idle)
            reader, writer = self._idle.pop() if reused else await self._connected()
            writer.write(request)
            try:
                answered = (await reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
                break
            except (asyncio.IncompleteReadError, OSError):
                writer.close()
                if not reused:  # one that was kept may have been given up by the server meanwhile
                    raise
        length = next(int(line.split(":")[1]) for line in answered if line.startswith("content-length:"))
        answer = await reader.readexactly(length)
        if " 200 " not in answered[0]:
            raise Stop(f"Infinity answered {answered[0]}: {answer[:200]!r}")
        self._idle.append((reader, writer))
        return np.frombuffer(base64.b64decode(json.loads(answer)["data"][0]["embedding"]), dtype=np.float32)

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self._port, limit=2**20)

    async def close(self) -> None:
        """Let the connections go."""
        for _, writer in self._idle:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()
