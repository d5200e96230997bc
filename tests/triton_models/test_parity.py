"""The parity gate as one waits for it: a tick for each batch, and their number known before."""

from pathlib import Path

import pytest

from bartizan_connector.__main__ import main
from bartizan_connector.encode.onnx import OnnxEncoder
from bartizan_encoders.tower import Tower
from bartizan_triton.parity import batches_of, compare
from tests.exports import export_folder, tower_folder


def test_every_batch_ticks_and_their_number_is_known_before() -> None:
    encoder = OnnxEncoder.open(export_folder("bert", "fp32"), threads=1)
    ticks: list[int] = []
    parity = compare(Tower.load(tower_folder("bert")), encoder, lambda done=1: ticks.append(done))
    assert sum(ticks) == batches_of(encoder.spec) == parity.batches


def test_the_command_shows_how_far_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["export", str(tower_folder("bert")), "--out", str(tmp_path / "out")])
    printed = capsys.readouterr()
    batches = batches_of(Tower.load(tower_folder("bert")).spec)
    assert f"comparing with torch, batches: {batches} done" in printed.err
    assert f"texts in {batches} batches" in printed.out
