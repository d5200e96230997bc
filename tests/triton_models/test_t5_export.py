"""T5 towers as they come from published files pass the gate: GTR's head without bias, gated layers, bf16, int8."""

from pathlib import Path

import numpy as np
import pytest

from bartizan_connector.encode.onnx import OnnxEncoder
from bartizan_connector.space.spec import Precision
from bartizan_encoders.importing import Wishes, import_tower
from bartizan_encoders.local import TorchEncoder
from bartizan_triton.export import export_tower
from tests.encoders import published

TEXTS = ["the tower of one", "a", "two, to the tower! 11", ""]


@pytest.mark.packaging
@pytest.mark.parametrize(("kept", "served"), [("fp32", "fp32"), ("fp32", "int8"), ("bf16", "fp32")])
def test_an_imported_t5_is_served_as_it_is(tmp_path: Path, kept: str, served: Precision) -> None:
    source = published.hugging_face(tmp_path / "model", "t5", head=True, feed_forward_proj="gated-gelu")
    tower = import_tower(str(source), Wishes(dim=24, precision=kept))  # type: ignore[arg-type]
    tower.save(tmp_path / "tower")
    export_tower(tmp_path / "tower", tmp_path / "export", served)
    expected = TorchEncoder(tower).encode(TEXTS, "document").values
    came = OnnxEncoder.open(tmp_path / "export").encode(TEXTS, "document").values
    assert isinstance(came, np.ndarray)
    assert (came * expected).sum(axis=1).min() > (0.9999 if served == kept == "fp32" else 0.95)
