"""The benchmarks measure what they say, and what was committed bears out what the documentation says."""

import json
import time
from pathlib import Path

import pytest

from bartizan_connector.base.errors import WrongUse
from bartizan_training import toml
from bartizan_training.evaluate.judging import Judged
from bartizan_training.evaluate.measuring import Measured
from bartizan_training.evaluate.timing import Times
from bartizan_training.recipe import Recipe
from bartizan_training.run import Run
from benchmarks import recipes, record
from benchmarks.__main__ import main
from benchmarks.adaptation import tables_of
from benchmarks.collections import Expected, expected
from benchmarks.query_tower import (
    _MEASURE,
    SENTENCE_TRANSFORMERS,
    STUDENT,
    STUDENT_INT8,
    TEACHER,
    TEACHER_INT8,
    _promises,
    find,
    take_turns,
)
from tests.training import toy

SPEED = {TEACHER: 3.0, STUDENT: 1.5, TEACHER_INT8: 1.7, STUDENT_INT8: 1.0}


def test_engines_take_turns_with_the_same_queries() -> None:
    asked: list[tuple[str, str]] = []
    engines = {name: lambda text, name=name: asked.append((name, text)) for name in ("a", "b", "c")}
    times = take_turns(engines, [str(number) for number in range(9)], rounds=3)
    blocks: list[tuple[str, list[str]]] = []
    for name, text in asked:
        if not blocks or blocks[-1][0] != name or len(blocks[-1][1]) == 65:
            blocks.append((name, []))
        blocks[-1][1].append(text)
    assert "".join(name for name, _ in blocks) == "abc" + "bca" + "cab"
    for turn in range(3):
        first, *others = [texts for _, texts in blocks[3 * turn : 3 * turn + 3]]
        assert len(first) == 65
        assert others == [first, first]
    assert {name: len(taken.wall) for name, taken in times.items()} == {"a": 180, "b": 180, "c": 180}


def test_only_the_queries_after_the_warm_up_are_timed() -> None:
    calls = 0

    def slow_at_first(text: str) -> None:
        nonlocal calls
        calls += 1
        if calls <= 5:
            time.sleep(0.05)

    assert max(take_turns({"engine": slow_at_first}, ["q"], rounds=1)["engine"].wall) < 50


def test_teacher_and_student_are_found_in_the_demos_folder(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    made = {}
    for number, step in enumerate(("contrastive", "distil_query", "refine"), start=1):
        made[step] = run.artefacts.of(step, "towers", {"step": number})
        made[step].folder.mkdir(parents=True)
        run.note_done(run.step_folder(number, step), made[step])
    with pytest.raises(WrongUse, match="holds no finished run"):
        find(tmp_path)
    (tmp_path / "run/towers").mkdir()
    chain = find(tmp_path)
    assert chain.teacher == made["contrastive"].folder / "query"
    assert chain.student == tmp_path / "run/towers/query"
    assert chain.document == tmp_path / "run/towers/document"
    assert chain.data == tmp_path / "corpus"


def test_a_folder_without_a_distilled_tower_says_what_makes_one(tmp_path: Path) -> None:
    with pytest.raises(WrongUse, match="no finished run with a distilled query tower; make it: bartizan demo"):
        find(tmp_path)


def test_an_unknown_benchmark_lists_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["collections", "speed"])
    assert "unknown benchmark speed; there are query_tower, collections" in capsys.readouterr().err


def test_a_benchmark_that_cannot_run_ends_with_its_exit_code(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BARTIZAN_DATA", str(tmp_path / "nowhere"))
    assert main(["collections"]) == 2
    assert "collections: no judged collections at" in capsys.readouterr().err


def test_a_run_leaves_numbers_facts_and_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    record.Record("trial").write({"answer": 42}, {"Answers": [{"question": "all", "answer": "42"}], "Empty": []})
    (written,) = tmp_path.glob("*-trial.json")
    facts = json.loads(written.read_bytes())
    assert facts["results"] == {"answer": 42}
    assert facts["machine"]["cores"] >= 1
    assert facts.keys() >= {"began", "ended", "command", "commit", "load_at_begin", "load_at_end", "versions"}
    table = written.with_suffix(".md").read_text()
    assert "## Answers\n\n| question | answer |\n| --- | --- |\n| all | 42 |" in table
    assert "Empty" not in table


def test_a_plot_lies_beside_the_numbers_it_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    record.Record("trial").write({"answer": 1}, {})
    second = record.Record("trial")
    second.write({"answer": 2}, {})
    second.attach(".svg", "<svg/>")
    assert [path.stem[10:] for path in tmp_path.glob("*.svg")] == ["-trial-run2"]


def test_an_unknown_study_lists_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["studies", "--study", "speed"]) == 2
    assert "no study is called speed; there are quantised, fraction, scaling" in " ".join(
        capsys.readouterr().err.split()
    )


def test_a_second_run_of_the_day_leaves_the_first_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    for answer in (1, 2, 3):
        run = record.Record("trial")
        run.write({"answer": None}, {})
        run.write({"answer": answer}, {"Answers": [{"answer": str(answer)}]})
    written = sorted(tmp_path.glob("*.json"), key=lambda path: path.stem)
    assert [path.stem[10:] for path in written] == ["-trial", "-trial-run2", "-trial-run3"]
    assert [json.loads(path.read_bytes())["results"]["answer"] for path in written] == [1, 2, 3]
    assert all(path.with_suffix(".md").exists() for path in written)


def test_no_promise_is_taken_out_of_the_benchmark_because_it_is_not_kept() -> None:
    times = {name: Times([ms], [ms]) for name, ms in {**SPEED, SENTENCE_TRANSFORMERS: 10.0}.items()}
    measured = {_MEASURE: 0.5}
    judged = {
        name: Judged(measured=Measured(measured, {}), answers={}, latency=None, truncated=0)  # type: ignore[arg-type]
        for name in SPEED
    }
    promises = {row["promise"]: row["kept"] for row in _promises(times, judged)}
    assert promises == {
        "distilled keeps nDCG@10 (fp32)": "yes",
        "distilled keeps nDCG@10 (int8)": "yes",
        "distilled is faster than its teacher (fp32)": "yes",
        "distilled is faster than its teacher (int8)": "no",
        "distilled (int8) is faster than its teacher in sentence-transformers": "yes",
    }


def test_the_table_of_expected_values_is_found_by_its_headings(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(
        "# Collections\n\n| collection | docs | MiniLM nDCG@10 | MiniLM R@100 |\n|---|---|---|---|\n"
        "| one | 5 | 0.645 | 0.925 |\n| two | 7 | - | - |\n"
    )
    assert expected(tmp_path) == {"one": Expected(0.645, 0.925), "two": Expected(None, None)}


@pytest.mark.parametrize("written", sorted(record.RESULTS.glob("*.json")), ids=lambda path: path.stem)
def test_every_committed_result_names_command_commit_and_machine(written: Path) -> None:
    facts = json.loads(written.read_bytes())
    assert facts["command"].startswith(("python -m benchmarks", "python -m tests.soak"))
    assert facts["commit"] != "unknown"
    assert facts["machine"]["cpu"]
    assert written.with_suffix(".md").exists()


def test_what_goes_on_adds_to_the_result_of_the_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    for number in (1, 2):
        piece = record.Record("soak", goes_on=True)
        assert piece.before.get("kills", 0) == number - 1
        piece.write({"kills": number}, {"Kills": [{"kills": str(number)}]})
    another = record.Record("soak")
    another.write({"kills": 7}, {})
    assert sorted(path.name.partition("-soak")[2] for path in tmp_path.iterdir()) == [
        "-run2.json", "-run2.md", ".json", ".md",
    ]  # fmt: skip


@pytest.fixture
def small_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A toy in the place of the shipped small recipes."""
    toy.bench(tmp_path)
    distil = toy.with_keys(toy.DISTIL, steps=2, epochs=None)
    path = toy.recipe(tmp_path, toy.with_keys(toy.CONTRASTIVE, steps=40), distil)
    monkeypatch.setattr(recipes, "shipped", lambda: {"toy-small": path, "toy": path})
    monkeypatch.setattr(record, "RESULTS", tmp_path / "results")
    monkeypatch.setitem(recipes.ENGINES, "dense", "torch")  # an export would take longer than all the rest
    return tmp_path


@pytest.mark.packaging
def test_a_small_recipe_is_judged_beside_its_start(small_recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    where = {"data": small_recipe / "data", "work": small_recipe / "work"}
    recipes.run(["toy-small"], **where)
    (written,) = (small_recipe / "results").glob("*-recipes-toy-small.json")
    found = json.loads(written.read_bytes())["results"]["recipes"]["toy-small"]
    start, trained = found["start"]["metrics"], found["steps"]["contrastive"]
    assert list(found["steps"]) == ["contrastive", "distil_query"]
    assert trained["change"]["mean"] == pytest.approx(trained["metrics"]["nDCG@10"] - start["nDCG@10"])
    assert 0 < trained["change"]["low"] < trained["change"]["mean"] < trained["change"]["high"]
    assert min(found["minutes"]["clock"], found["minutes"]["processor"]) > 0
    table = written.with_suffix(".md").read_text()
    assert "| toy-small | start |" in table
    now, change = trained["metrics"]["nDCG@10"], trained["change"]["mean"]
    assert f"| toy-small | contrastive | {now:.4f} | {change:+.4f} |" in table
    monkeypatch.setattr(recipes, "train", None)
    monkeypatch.setattr(recipes, "Evaluation", None)
    recipes.run([], **where)
    assert json.loads(written.read_bytes())["results"]["recipes"]["toy-small"] == found


def test_a_recipe_that_is_not_small_is_no_benchmark(small_recipe: Path) -> None:
    with pytest.raises(WrongUse, match="no small recipe is called toy; there are toy-small"):
        recipes.run(["toy"], data=small_recipe / "data", work=small_recipe / "work")


def test_both_arms_of_the_adaptation_benchmark_take_equal_steps(tmp_path: Path) -> None:
    lengths = {"adapt": 30, "splade": 60}
    kinds, totals = [], []
    for adapted in (True, False):
        (tmp_path / "recipe.toml").write_text(toml.dump(tables_of(seed=2, adapted=adapted, steps=lengths)), "utf-8")
        (tmp_path / "data").mkdir(exist_ok=True)
        recipe = Recipe.load(tmp_path / "recipe.toml", data=tmp_path / "data")
        kinds.append([step.kind for step in recipe.steps])
        totals.append(sum(getattr(step, "steps", 0) for step in recipe.steps))
        assert recipe.seed == 2
    assert kinds[0][0] == "adapt"
    assert kinds[1] == kinds[0][1:]
    assert totals == [90, 90]
