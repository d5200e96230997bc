"""`bartizan study quantised` on tiny towers: each form's figures are what its vectors give, and a refusal is a line."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from bartizan_connector.base.errors import WrongUse
from bartizan_encoders.local import TorchEncoder
from bartizan_training.commands.study import study
from bartizan_training.studies import forms
from bartizan_training.studies.forms import open_form
from bartizan_training.studies.quantised import Quantised, Row, table
from tests.training import toy, toy_sparse


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dense and a sparse tower, and few enough queries."""
    folder = tmp_path_factory.mktemp("bench")
    torch.set_num_threads(1)
    toy.tower(folder / "dense", layers=1)
    toy_sparse.tower(folder / "sparse")
    toy.collection(folder / "data", queries=60)
    return folder


def rows_of(bench: Path, tower: str, *names: str) -> dict[str, Row]:
    rows = Quantised(tower=bench / tower, data=bench / "data", forms=names).run()
    return {row.form: row for row in rows}


@pytest.mark.packaging
@pytest.mark.parametrize("kind", ["dense", "sparse"])
def test_each_form_is_measured_against_fp32(bench: Path, kind: str) -> None:
    rows = rows_of(bench, kind, "bf16", "int8-weights", "int4-weights")
    assert list(rows) == ["fp32", "bf16", "int8-weights", "int4-weights"]
    plain = rows["fp32"]
    assert plain.against is not None
    assert (plain.cosine, plain.against.mean) == (pytest.approx(1.0), 0.0)
    for row in rows.values():
        assert row.refused is None
        assert row.ndcg is not None
        assert plain.ndcg is not None
        assert row.against is not None
        assert row.against.mean == pytest.approx(row.ndcg - plain.ndcg)
        assert (row.active_terms is not None) == (kind == "sparse")
        assert 0 < (row.p50 or 0) <= (row.p95 or 0)
    eight, four = (rows[name].cosine or 0 for name in ("int8-weights", "int4-weights"))
    assert eight == pytest.approx(1.0, abs=1e-3)
    assert eight > four > 0.5
    assert (rows["bf16"].cosine or 0) > 0.99


@pytest.mark.parametrize(("bits", "levels"), [(8, 127), (4, 7)])
def test_weights_of_few_bits_are_near_the_towers_own(bench: Path, tmp_path: Path, bits: int, levels: int) -> None:
    opened = open_form(f"int{bits}-weights", bench / "dense", tmp_path, threads=1)
    exact = TorchEncoder.open(bench / "dense").encode(["ask1 ask2", "ask3"], "query").values
    found = opened.encoder.encode(["ask1 ask2", "ask3"], "query").values
    opened.encoder.close()
    apart = np.abs(np.asarray(found) - np.asarray(exact)).max()
    assert 0 < apart < 3 / levels


def test_a_form_that_cannot_be_made_is_a_line_with_its_reason(bench: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(tower: Path, scratch: Path, threads: int) -> forms.Opened:
        raise WrongUse("too few bits\nfor this tower")

    monkeypatch.setattr(forms, "FORMS", {**forms.FORMS, "int8": refuses})
    rows = Quantised(tower=bench / "dense", data=bench / "data", forms=("int8",)).run()
    assert [row.refused for row in rows] == [None, "too few bits"]
    assert table(rows)[1][:2] == ("int8", "not made: too few bits")


def test_the_command_shows_a_line_a_form_and_writes_all_figures(bench: Path, tmp_path: Path) -> None:
    given = ["quantised", "--tower", str(bench / "sparse"), "--data", str(bench / "data"), "--forms", "bf16"]
    result = CliRunner().invoke(study, [*given, "--out", str(tmp_path / "forms.json")])
    assert result.exit_code == 0, result.output
    assert "bf16" in result.output
    written = json.loads((tmp_path / "forms.json").read_text())
    assert [form["form"] for form in written["forms"]] == ["fp32", "bf16"]
    assert written["forms"][1]["against"]["ties"] + 1 > 0
    refused = CliRunner().invoke(study, [*given, "--forms", "int2"])
    assert isinstance(refused.exception, WrongUse)
    assert "--forms names int2" in str(refused.exception)
