"""The loop: killed and resumed, or shared by processes, it ends with the same weights; and what it refuses."""

import json
import math
import resource
import shutil
import signal
from pathlib import Path

import pytest
import torch

from bartizan_connector.base.errors import Stop, WrongUse
from bartizan_encoders.weights import read_weights
from bartizan_training.loop import slope, train
from bartizan_training.recipe import Recipe
from tests.training import toy
from tests.training.toy import CONTRASTIVE, DISTIL, REFINE, with_keys

SHORT = {"batch_size": 16, "epochs": None, "checkpoint_every": 4, "log_every": 2}
STAGES = (
    with_keys(CONTRASTIVE, **SHORT, steps=12, dropout=True, accumulate=2, tied=False),
    with_keys(DISTIL, **SHORT, steps=12, dropout=True),
    with_keys(REFINE, **SHORT, steps=8),
)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tower, data, recipe, and its whole run in `whole`."""
    folder = toy.bench(tmp_path_factory.mktemp("bench"))
    torch.set_num_threads(1)
    train(Recipe.load(toy.recipe(folder, *STAGES)), folder / "whole")
    return folder


def weights(run: Path, role: str = "query") -> dict[str, torch.Tensor]:
    return read_weights(run / "towers" / role)


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def far(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    return max((a[name] - b[name]).abs().max().item() for name in a)


def history(run: Path) -> list[dict[str, float]]:
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in record.items() if key != "tokens_per_second"} for record in records]


@pytest.mark.packaging
def test_a_run_killed_again_and_again_ends_as_if_it_had_never_been(bench: Path) -> None:
    out = bench / "killed"
    for moment in ("1-contrastive/checkpoints/step-00000004", "2-distil_query/checkpoints/step-00000008", "3-refine"):
        toy.train_and_kill(bench / "recipe.toml", out, at=out / "steps" / moment)
        unfinished = out / "steps" / moment.split("/")[0] / "checkpoints/step-00000099.part"
        unfinished.mkdir(parents=True)
        (unfinished / "model.safetensors").write_bytes(b"cut off")
        for generators in out.rglob("random_states_*.pkl"):
            generators.unlink()  # accelerate keeps them; exactness must not rest on it
        with (out / "metrics.jsonl").open("a") as file:
            later = {"stage": int(moment[0]), "step": 99}
            file.write(json.dumps(later) + "\n" + json.dumps(later)[:10])
    train(Recipe.load(bench / "recipe.toml"), out, resume=True)
    assert same(weights(out, "document"), weights(bench / "whole", "document"))
    assert same(weights(out, "query"), weights(bench / "whole", "query"))
    assert history(out) == history(bench / "whole")
    assert (out / "recipe.toml").read_text() == (bench / "whole/recipe.toml").read_text()


@pytest.mark.packaging
def test_the_same_seed_gives_the_same_weights_and_another_seed_others(bench: Path, tmp_path: Path) -> None:
    text = with_keys(CONTRASTIVE, steps=3, dropout=True)
    for name, seed in (("a", 7), ("b", 7), ("c", 8)):
        train(Recipe.load(toy.recipe(bench, text, head=f"seed = {seed}")), tmp_path / name)
    assert same(weights(tmp_path / "a"), weights(tmp_path / "b"))
    assert not same(weights(tmp_path / "a"), weights(tmp_path / "c"))


@pytest.mark.packaging
def test_two_processes_train_what_one_trains(bench: Path) -> None:
    loss = "loss = { temperature = 0.05, bidirectional = true }"
    stages = (
        with_keys(CONTRASTIVE, steps=2, name="cached", grad_cache=5),
        with_keys(CONTRASTIVE, steps=3, tied=False, document="start.document", query="start.query") + f"\n{loss}",
        with_keys(DISTIL, steps=3, epochs=None, accumulate=2) + "\nloss = { w_tokens = 1 }",
        with_keys(REFINE, steps=3) + f"\n{loss}",
    )
    path = toy.recipe(bench, *stages)
    one, two = bench / "one", bench / "two"
    train(Recipe.load(path), one)
    toy.train_in_two_processes(path, two)
    for ours, theirs in zip(history(one), history(two), strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-4)
        assert ours["gradient_norm"] == pytest.approx(theirs["gradient_norm"], rel=1e-3)
    # AdamW divides by the gradient's size, so that rounding in tiny gradients shows up at the scale of the rate.
    start = read_weights(bench / "tower")
    for role in ("document", "query"):
        assert far(weights(one, role), weights(two, role)) < 5e-4
    assert far(weights(one, "document"), start) > 3e-3


def test_parts_of_a_batch_add_up_to_the_batch(bench: Path, tmp_path: Path) -> None:
    whole, parts = {"batch_size": 32}, {"batch_size": 8, "accumulate": 4}
    for name, keys in (("whole", whole), ("parts", parts)):
        stage = with_keys(DISTIL, epochs=None, steps=3, log_every=1, **keys)
        train(Recipe.load(toy.recipe(bench, stage)), tmp_path / name)
    for ours, theirs in zip(history(tmp_path / "whole"), history(tmp_path / "parts"), strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-4)
        assert ours["gradient_norm"] == pytest.approx(theirs["gradient_norm"], rel=1e-3)


def test_each_step_sees_the_next_batches_in_order(bench: Path, tmp_path: Path) -> None:
    text = with_keys(DISTIL, epochs=None, steps=3, log_every=1, accumulate=2, learning_rate=1e-12)
    stage = toy.stage(bench, text)
    train(Recipe.load(toy.recipe(bench, text)), tmp_path / "run")
    parts = [stage(stage.batch(number)).item() for number in range(6)]
    expected = [(parts[i] + parts[i + 1]) / 2 for i in (0, 2, 4)]
    assert [record["loss"] for record in history(tmp_path / "run")] == pytest.approx(expected, rel=1e-5)
    assert len({round(part, 6) for part in parts}) == 6


def test_the_rate_rises_and_falls_as_a_line_says(bench: Path) -> None:
    rates = [record["learning_rate"] for record in history(bench / "whole") if record["stage"] == 2]
    assert [record["step"] for record in history(bench / "whole") if record["stage"] == 2] == [2, 4, 6, 8, 10, 12]
    assert rates == pytest.approx([3e-3 * left / 11 for left in (11, 9, 7, 5, 3, 1)])


def test_a_loss_that_is_no_number_stops_the_run_before_anything_of_it_is_saved(bench: Path, tmp_path: Path) -> None:
    recipe = Recipe.load(toy.recipe(bench, with_keys(CONTRASTIVE, learning_rate=1e30, warmup=0, log_every=7)))
    with pytest.raises(Stop, match=r"stage 1 \(contrastive\): at step 2 the loss is nan .* Lower learning_rate"):
        train(recipe, tmp_path / "run")
    assert not list((tmp_path / "run").rglob("*.safetensors"))


def test_a_run_is_not_overwritten(bench: Path) -> None:
    with pytest.raises(WrongUse, match="exists already; go on with it by --resume"):
        train(Recipe.load(bench / "recipe.toml"), bench / "whole")


def test_a_folder_with_other_things_is_no_run(bench: Path) -> None:
    with pytest.raises(WrongUse, match="is not a run"):
        train(Recipe.load(bench / "recipe.toml"), bench / "data", resume=True)


def test_resuming_with_another_recipe_names_what_differs(bench: Path) -> None:
    changed = toy.recipe(bench, STAGES[0], with_keys(STAGES[1], steps=99), STAGES[2], head="seed = 3")
    with pytest.raises(WrongUse, match=r"seed was 0, is 3; steps.2.steps was 12, is 99"):
        train(Recipe.load(changed), bench / "whole", resume=True)


@pytest.fixture(scope="module")
def cut_off(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose `run` was killed in its first stage."""
    folder = toy.bench(tmp_path_factory.mktemp("cut_off"))
    path = toy.recipe(folder, with_keys(CONTRASTIVE, steps=5000, checkpoint_every=1))
    toy.train_and_kill(path, folder / "run", at=folder / "run/steps/1-contrastive/checkpoints/step-00000002")
    return folder


def test_resuming_with_other_data_is_refused(cut_off: Path) -> None:
    queries = cut_off / "data/queries.jsonl"
    before = queries.read_text()
    queries.write_text(before.replace("ask1 ", "ask2 "))
    with pytest.raises(WrongUse, match="the data changed since"):
        train(Recipe.load(cut_off / "recipe.toml"), cut_off / "run", resume=True)
    queries.write_text(before)


def test_a_checkpoint_knows_its_examples_where_the_run_has_noted_no_data(cut_off: Path, tmp_path: Path) -> None:
    shutil.copytree(cut_off / "run", tmp_path / "run")
    (tmp_path / "run/data.json").unlink()
    queries = cut_off / "data/queries.jsonl"
    before = queries.read_text()
    queries.write_text(before.replace("ask1 ", "ask2 "))
    with pytest.raises(WrongUse, match=r"the data changed since .*step-0"):
        train(Recipe.load(cut_off / "recipe.toml"), tmp_path / "run", resume=True)
    queries.write_text(before)


def test_resuming_with_another_number_of_processes_is_refused(cut_off: Path, tmp_path: Path) -> None:
    run = shutil.copytree(cut_off / "run", tmp_path / "run")
    for state in run.rglob("state.json"):
        state.write_text(state.read_text().replace('"processes": 1', '"processes": 4'))
    with pytest.raises(WrongUse, match="written by 4 processes and there are 1 now"):
        train(Recipe.load(cut_off / "recipe.toml"), run, resume=True)


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.bin", "state.json"])
@pytest.mark.parametrize("kept", [0, 100])
def test_a_damaged_checkpoint_is_named(cut_off: Path, tmp_path: Path, name: str, kept: int) -> None:
    run = shutil.copytree(cut_off / "run", tmp_path / "run")
    for path in run.rglob(name):
        path.write_bytes(path.read_bytes()[:kept] if name != "state.json" else b"{"[:kept])
    with pytest.raises(Stop, match=r"checkpoints/step-\d+ is damaged: .*; train again into another --out"):
        train(Recipe.load(cut_off / "recipe.toml"), run, resume=True)


def test_a_disk_that_is_full_leaves_the_checkpoint_before_whole(cut_off: Path, tmp_path: Path) -> None:
    run = shutil.copytree(cut_off / "run", tmp_path / "run")
    before = {path.name: path.read_bytes() for path in run.rglob("checkpoints/step-????????/*")}
    limits, action = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with pytest.raises(Stop, match="the one before it is whole: make room and run --resume"):
            train(Recipe.load(cut_off / "recipe.toml"), run, resume=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, action)
    assert {path.name: path.read_bytes() for path in run.rglob("checkpoints/step-????????/*")} == before


def test_a_finished_run_resumes_to_nothing(bench: Path) -> None:
    recipe = Recipe.load(toy.recipe(bench, *STAGES))
    before = {path: path.stat().st_mtime_ns for path in (bench / "whole").rglob("*")}
    train(recipe, bench / "whole", resume=True)
    assert before == {path: path.stat().st_mtime_ns for path in (bench / "whole").rglob("*")}


def test_a_finished_run_keeps_no_scratch(bench: Path) -> None:
    whole = bench / "whole"
    kept = {str(path.relative_to(whole)) for path in whole.glob("*/*")}
    steps, towers = ("contrastive", "distil_query", "refine"), {"towers/document", "towers/query"}
    numbered = {f"steps/{number}-{step}" for number, step in enumerate(steps, start=1)}
    assert kept == towers | numbered | {f"artefacts/{step}-towers" for step in steps}
    assert {path.name for path in whole.glob("steps/*/*")} == {"done.json"}
    assert all(len(list((whole / f"artefacts/{step}-towers").iterdir())) == 1 for step in steps)


def test_the_rate_rises_in_a_line_and_falls_in_a_line_or_as_half_a_cosine() -> None:
    for schedule, expected in (
        ("linear", lambda left: left),
        ("cosine", lambda left: math.sin(math.pi * left / 2) ** 2),
    ):
        rates = [slope(step, 12, 0.25, schedule) for step in range(12)]  # type: ignore[arg-type]
        assert rates[:3] == pytest.approx([1 / 4, 2 / 4, 3 / 4])
        assert rates[3:] == pytest.approx([expected((12 - step) / 9) for step in range(3, 12)])
        assert rates[3] == 1.0
