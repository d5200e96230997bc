"""The folder of a run: which files of data may be others when it goes on. Nothing is trained here."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from bartizan_connector.base.errors import WrongUse
from bartizan_training import plan
from bartizan_training.data.digests import digest_of_files
from bartizan_training.recipe import Recipe
from bartizan_training.run import Run
from tests.training import toy
from tests.training.toy import DISTIL, REFINE, with_keys

TEXTS = with_keys(DISTIL, texts=None, steps=2, epochs=None) + '\ntexts = [{ kind = "documents", path = "data" }]'
"""It reads no query and no judgement."""
REFINED = with_keys(REFINE, steps=2)


class Begun:
    """A run whose first step has begun, beside `tower/` and `data/`."""

    def __init__(self, folder: Path, *steps: str) -> None:
        self.data = toy.bench(folder) / "data"
        judged = (self.data / "qrels/train.tsv").read_text().splitlines()
        (self.data / "qrels/dev.tsv").write_text("\n".join(judged[:9]) + "\n")
        self.recipe = Recipe.load(toy.recipe(folder, *steps))
        self.run = Run(folder / "run")
        self.open()
        self.run.step_folder(1, self.recipe.step_names[0]).joinpath("checkpoints/step-00000001").mkdir(parents=True)

    def open(self) -> None:
        self.run.open(self.recipe, plan.sources(self.recipe), processes=1)

    @property
    def noted(self) -> dict[str, dict[str, int | str | None] | None]:
        facts = json.loads(self.run.data.read_text())
        return {Path(file).relative_to(self.data).as_posix(): content for file, content in facts.items()}


@pytest.mark.parametrize("file", ["qrels/test.tsv", "qrels/train.tsv", "qrels/dev.tsv", "queries.jsonl"])
def test_a_file_that_no_step_reads_may_change(tmp_path: Path, file: str) -> None:
    begun = Begun(tmp_path, TEXTS)
    lines = (begun.data / file).read_text().splitlines()
    (begun.data / file).write_text("\n".join(lines[:-1]) + "\n")
    begun.open()
    assert list(begun.noted) == ["corpus.jsonl"]


@pytest.mark.parametrize(("file", "refused"), [("corpus.jsonl", True), ("qrels/train.tsv", False)])
def test_a_file_that_only_steps_to_come_read_may_change_and_one_that_a_begun_step_reads_too_may_not(
    tmp_path: Path, file: str, refused: bool
) -> None:
    begun = Begun(tmp_path, TEXTS, REFINED)
    step = begun.run.step_folder(1, begun.recipe.step_names[0])
    begun.run.artefacts.root.mkdir()
    (step / "done.json").write_text('{"artefact": "artefacts"}')
    lines = (begun.data / file).read_text().splitlines()
    (begun.data / file).write_text("\n".join([*lines[:-2], lines[-1]]) + "\n")
    if refused:
        with pytest.raises(WrongUse, match=rf"{file} (holds something else|is not there).* step 2 \('refine'\)"):
            begun.run.keep_data(begun.recipe, 2)
    else:
        begun.run.keep_data(begun.recipe, 2)
        (begun.data / file).write_text("\n".join(lines) + "\n")
        begun.run.step_folder(2, "refine").joinpath("checkpoints/step-00000001").mkdir(parents=True)
        with pytest.raises(WrongUse, match=rf"{file} holds something else now"):
            begun.open()


def test_judgements_for_testing_that_come_or_go_are_told(tmp_path: Path) -> None:
    """Without them, queries are learned from that were left out before."""
    begun = Begun(tmp_path, REFINED)
    test = begun.data / "qrels/test.tsv"
    text = test.read_text()
    test.unlink()
    with pytest.raises(WrongUse, match=r"test\.tsv is not there any more, and step 1 \('refine'\) would go on"):
        begun.open()
    begun.run.data.unlink()
    begun.open()
    assert begun.noted["qrels/test.tsv"] is None
    begun.open()
    test.write_text(text)
    with pytest.raises(WrongUse, match=r"test\.tsv is there, and was not, and step 1 \('refine'\) would go on"):
        begun.open()


def test_data_is_read_again_only_where_it_looks_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = Begun(tmp_path, TEXTS)
    read: list[list[Path]] = []

    def noting(files: list[Path], on_piece: Callable[[], None]) -> str:
        read.append(files)
        return digest_of_files(files, on_piece)

    monkeypatch.setattr("bartizan_training.data.contents.digest_of_files", noting)
    begun.open()
    assert read == []
    os.utime(begun.data / "corpus.jsonl", ns=(7, 7))
    begun.open()
    assert read == [[begun.data / "corpus.jsonl"]]
    begun.open()
    assert len(read) == 1, "the new time is noted"
    assert (begun.noted["corpus.jsonl"] or {})["touched"] == 7


def test_a_note_without_times_and_with_files_that_are_not_read_is_taken(tmp_path: Path) -> None:
    """As runs have it that were begun by 0.1.0."""
    begun = Begun(tmp_path, TEXTS)
    corpus = begun.noted["corpus.jsonl"]
    assert corpus
    digest = {"bytes": corpus["bytes"], "sha256": corpus["sha256"]}
    before = {"corpus.jsonl": digest, "qrels/test.tsv": {"bytes": 1, "sha256": "0" * 64}}
    old = {str(begun.data / file): content for file, content in before.items()}
    begun.run.data.write_text(json.dumps(old, indent=1) + "\n")
    begun.open()
    assert begun.noted["corpus.jsonl"] == corpus
    text = (begun.data / "corpus.jsonl").read_text()
    begun.run.data.write_text(json.dumps(old, indent=1) + "\n")
    (begun.data / "corpus.jsonl").write_text(text.replace("thing1 ", "thing2 ", 1))
    with pytest.raises(WrongUse, match=r"corpus\.jsonl holds something else now"):
        begun.open()
