"""`bartizan mine`, and what its filters drop, against a loop over texts."""

from pathlib import Path

import numpy as np
import pytest
import torch
from typer import Typer
from typer.testing import CliRunner

from bartizan_connector.base.errors import WrongUse
from bartizan_encoders.local import TorchEncoder
from bartizan_encoders.tower import Tower
from bartizan_training.commands.mine import mine
from bartizan_training.data.collections import BeirData
from bartizan_training.data.negatives import read_negatives, write_negatives
from bartizan_training.data.packing import Budget, Packed
from bartizan_training.data.pairs import read_pairs
from bartizan_training.settings import PairsTable
from bartizan_training.teachers.cross_encoder import CrossEncoder, PairTable
from tests.training import toy

PROGRAM = Typer()
PROGRAM.command()(mine)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench")
    toy.tower(folder / "tower")
    toy.collection(folder / "data", queries=32)
    torch.manual_seed(3)
    tower = Tower.load(folder / "tower")
    teacher = CrossEncoder.over(tower, name="x", pooling="cls", query_tokens=8, document_tokens=8)
    with torch.no_grad():
        teacher.tower.head.weight.mul_(100)  # type: ignore[union-attr, operator]  # so that it tells texts apart
    teacher.save(folder / "teacher")
    return folder


def run(bench: Path, name: str, *options: str) -> dict[str, list[str]]:
    arguments = [str(bench / "data"), "--tower", str(bench / "tower"), "--out", str(bench / name), *options]
    result = CliRunner().invoke(PROGRAM, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    found = read_negatives(bench / name)
    assert f"{sum(map(len, found.values())):,} negatives" in result.output
    return found


def test_what_scores_above_a_share_of_the_positive_is_dropped(bench: Path) -> None:
    deep = ("--depth", "95")
    every, below = run(bench, "all.jsonl", *deep), run(bench, "below.jsonl", *deep, "--below", "0.999")
    data, encoder = BeirData.read(bench / "data"), TorchEncoder.open(bench / "tower")
    documents = dict(zip(data.corpus, encoder.encode(list(data.corpus.values()), "document").values, strict=True))
    dropped = 0
    for id, (positive,) in ((id, tuple(grades)) for id, grades in data.qrels("train").items()):
        q = encoder.encode([data.queries[id]], "query").values[0]
        least = 0.999 * (documents[positive] @ q)
        near = {other for other in every[id] if abs(documents[other] @ q - least) < 1e-6}
        expected = [other for other in every[id] if documents[other] @ q < least]
        assert [other for other in below[id] if other not in near] == [n for n in expected if n not in near]
        dropped += len(every[id]) - len(below[id])
    assert 0 < dropped < sum(map(len, every.values()))


def test_what_the_teacher_does_not_score_below_the_positive_is_dropped_and_the_first_are_kept(bench: Path) -> None:
    teacher = ("--teacher", str(bench / "teacher"), "--teacher-margin", "0.01")
    every, below = run(bench, "all.jsonl", "--depth", "9"), run(bench, "below.tsv", "--depth", "9", *teacher)
    few = run(bench, "few.jsonl", "--depth", "9", *teacher, "--count", "2")
    data, model = BeirData.read(bench / "data"), CrossEncoder.load(bench / "teacher").eval()

    @torch.no_grad()
    def score(query: str, document: str) -> float:
        table = PairTable(model.tower.tokens, [data.queries[query]], [data.corpus[document]])
        ids, lengths = table.pick(np.array([0]), np.array([0]))
        return model(Packed.of(ids, Budget(tokens=99)), lengths, "fp32").item()

    dropped = 0
    for id, (positive,) in ((id, tuple(grades)) for id, grades in data.qrels("train").items()):
        most = score(id, positive) - 0.01
        assert below.get(id, []) == [other for other in every[id] if score(id, other) < most]
        assert few[id] == below.get(id, [])[:2]
        dropped += len(every[id]) - len(below.get(id, []))
    assert 0 < dropped < sum(map(len, every.values()))


def test_vectors_are_kept_under_tower_and_texts(bench: Path, tmp_path: Path) -> None:
    first = run(bench, "first.jsonl", "--keep", str(tmp_path))
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("vectors.npy")}
    assert len(kept) == 2
    assert run(bench, "second.jsonl", "--keep", str(tmp_path), "--split", "train") == first
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("vectors.npy")} == kept
    run(bench, "third.jsonl", "--keep", str(tmp_path), "--max-tokens", "4")
    assert len(list(tmp_path.rglob("vectors.npy"))) == 4


@pytest.mark.parametrize("name", ["negatives.jsonl", "negatives.tsv"])
def test_a_recipe_reads_what_was_written(bench: Path, tmp_path: Path, name: str) -> None:
    found = run(bench, name, "--depth", "5")
    pairs = read_pairs(PairsTable(path=bench / "data", negatives=bench / name))
    assert pairs.negatives
    assert all(len(row) == 5 for row in pairs.negatives)
    write_negatives(tmp_path / name, found)
    assert read_negatives(tmp_path / name) == found


def test_a_bad_line_of_ids_is_named(tmp_path: Path) -> None:
    (tmp_path / "n.tsv").write_text("q1\td1\nq2 d2\n")
    with pytest.raises(WrongUse, match=r"n.tsv:2: expected query id ⇥ document id, got 'q2 d2'"):
        read_negatives(tmp_path / "n.tsv")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--out", "x.csv"), r"expected a name that ends in .jsonl or .tsv"),
        (("--out", "nowhere/x.tsv"), r"the folder nowhere is not there"),
        (("--out", "x.tsv", "--teacher", "nowhere"), r"--teacher nowhere is not a folder"),
        (("--out", "x.tsv", "--skip", "50"), r"skip = 50 leaves none of the depth = 50 documents"),
        (("--out", "x.tsv", "--split", "dev"), r"has no split 'dev'"),
    ],
)
def test_what_cannot_be_is_refused(bench: Path, options: tuple[str, ...], message: str) -> None:
    with pytest.raises(WrongUse, match=message):
        CliRunner().invoke(
            PROGRAM, [str(bench / "data"), "--tower", str(bench / "tower"), *options], catch_exceptions=False
        )
