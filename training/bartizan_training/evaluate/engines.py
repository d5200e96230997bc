"""A tower in the engine it is to be judged in; what that engine cannot open as it is, is exported on the way."""

import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from importlib.metadata import entry_points
from pathlib import Path

from bartizan_connector.base import console
from bartizan_connector.base.errors import WrongUse, require_installed
from bartizan_connector.encode.encoder import Encoder
from bartizan_connector.encode.export import MODEL_FILE
from bartizan_connector.encode.settings import encoder_settings
from bartizan_connector.space.spec import TowerSpec
from bartizan_encoders import NEEDED

_RUN_BY = {"onnx": MODEL_FILE, "torch": "model.safetensors"}
"""The file that each engine in this process needs; other engines know best themselves."""


@contextmanager
def opened(folder: Path, engine: str, *, threads: int = 0, server: str | None = None) -> Iterator[Encoder]:
    """The tower or export in `folder`, run by `engine`, in this process or at that address."""
    spec = TowerSpec.read(folder)
    if (engine == "triton") != bool(server):
        raise WrongUse("--engine triton and --server URL (grpc://host:port) belong together; give both, or neither")
    keys = {"threads": threads} if threads else {}
    settings = encoder_settings({"engine": engine} | keys | ({"url": server} if server else {}))
    needed = _RUN_BY.get(engine)
    with tempfile.TemporaryDirectory(prefix="bartizan-export-") as aside:
        place = folder
        if needed and not (folder / needed).exists():
            if engine != "onnx":
                raise WrongUse(f"{folder} is an export without torch weights: use --engine onnx, or give the tower")
            console.err.print(f"exporting tower '{spec.name}' to ONNX …", markup=False)
            place = Path(aside) / "export"
            _export(folder, place)
        with closing(settings.open(place)) as encoder:
            yield encoder


def _export(folder: Path, out: Path) -> None:
    """Whatever package provides the ONNX export is found by entry point: training does not know it."""
    for point in entry_points(group="bartizan.exporters", name="onnx"):
        require_installed((*NEEDED, "onnx", "onnxruntime"), "train")
        point.load()(folder, out, precision="fp32")
        return
    raise WrongUse(
        f"{folder} holds no {MODEL_FILE}, and no exporter is installed; export it first (bartizan export), "
        "or use --engine torch"
    )
