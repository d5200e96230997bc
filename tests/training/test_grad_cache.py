"""GradCache: the gradients of the whole batch, with the memory of one piece of it."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from bartizan_training.adapters import towers_in
from bartizan_training.recipe import Recipe
from bartizan_training.stages.stage import Batch, Stage, TrainingStep
from tests.training import toy, toy_sparse
from tests.training.toy import with_keys

JUDGED = 'data = { kind = "judged", path = "data", negatives_per_query = 3 }\n'
LENGTHS = "steps = 1\nbatch_size = 16\nlearning_rate = 1e-3\nquery_tokens = 8\ndocument_tokens = 10\n"
SCORED = 'data = { kind = "tsv", file = "scores.tsv", path = "data", held_out = "data" }\n'
DENSE = {
    "tied": toy.CONTRASTIVE,
    "apart, both ways": with_keys(toy.CONTRASTIVE, tied=False) + "\nloss = { bidirectional = true }",
    "distilled": toy.DISTIL,
    "token by token": toy.DISTIL + "loss = { w_tokens = 0.5 }",
    "refined": toy.REFINE,
    "cross-encoder": f'kind = "cross_encoder"\n{LENGTHS}{JUDGED}',
    "late interaction": f'kind = "late_interaction"\nquery_masks = 0\n{LENGTHS}{SCORED}',
    "TAS": f'kind = "tas_balanced"\nloss = {{ w_in_batch = 0 }}\n{LENGTHS}{SCORED}',
}
SPARSE = {"sparse": toy_sparse.SPLADE, "adapted": toy_sparse.ADAPT}


@pytest.fixture(scope="module")
def benches(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    dense, sparse = tmp_path_factory.mktemp("dense"), tmp_path_factory.mktemp("sparse")
    toy.tower(dense / "tower", layers=2)
    toy_sparse.tower(sparse / "tower")
    for folder in (dense, sparse):
        toy.collection(folder / "data", queries=64)
    toy.write_scores(dense)
    return {"dense": dense, "sparse": sparse}


def stage(bench: Path, text: str) -> Stage:
    table = Recipe.load(toy.recipe(bench, text)).steps[0]
    assert isinstance(table, TrainingStep)
    made = table.stage({"document": bench / "tower", "query": bench / "tower"}, toy.toy_place(bench))
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.2)  # with smaller weights all texts are alike, and gradients only rounding
    return made


def gradients(stage: Stage, batch: Batch) -> dict[str, Tensor]:
    """Of one loss, with the same random numbers each time."""
    torch.manual_seed(7)
    stage.zero_grad(set_to_none=True)
    stage(batch).backward()
    return {name: p.grad for name, p in stage.named_parameters() if p.grad is not None}


def furthest(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    """The greatest difference of two components, in parts of the greatest gradient."""
    assert ours.keys() == theirs.keys()
    assert ours
    greatest = max(gradient.abs().max().item() for gradient in theirs.values())
    assert greatest > 0
    return max((ours[name] - theirs[name]).abs().max().item() for name in ours) / greatest


@pytest.mark.packaging
@pytest.mark.parametrize("name", [*DENSE, *SPARSE])
def test_gradients_are_those_of_the_whole_batch_in_one_piece(benches: dict[str, Path], name: str) -> None:
    bench = benches["sparse" if name in SPARSE else "dense"]
    text = (DENSE | SPARSE)[name] + "\n"
    whole, cached = stage(bench, text + "padded_tokens = 100000"), stage(bench, text + "grad_cache = 3")
    batches = whole.batch(0), cached.batch(0)
    assert all(len(packed.pieces) == 1 for packed in batches[0].texts)
    assert all(len(ids) <= 3 for packed in batches[1].texts for ids, _ in packed.pieces)
    # The order of sums differs with a piece's shape.
    assert furthest(gradients(cached, batches[1]), gradients(whole, batches[0])) < 1e-5


@pytest.mark.packaging
@pytest.mark.parametrize("name", ["tied", "sparse"])
def test_dropout_drops_the_same_when_a_piece_is_encoded_again(benches: dict[str, Path], name: str) -> None:
    made = stage(benches["sparse" if name in SPARSE else "dense"], (DENSE | SPARSE)[name] + "\ngrad_cache = 5").train()
    for tower in towers_in(made):
        for module in tower.modules():
            module.__dict__.update({key: 0.3 for key in ("attention_dropout",) if hasattr(module, key)})
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.3
    again = made.batch(0)
    kept = replace(again, texts=tuple(replace(packed, anew=False) for packed in again.texts))
    ours, theirs = gradients(made, again), gradients(made, kept)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    made.eval()
    assert furthest(gradients(made, again), ours) > 1e-2  # so that something was dropped


def test_nothing_of_a_piece_is_kept_but_its_vectors_and_it_is_encoded_twice(benches: dict[str, Path]) -> None:
    made = stage(benches["dense"], toy.CONTRASTIVE + "grad_cache = 4")
    again = made.batch(0)
    kept = replace(again, texts=tuple(replace(packed, anew=False) for packed in again.texts))
    calls, bytes_kept, found = 0, 0, []

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    def pack(tensor: Tensor) -> Tensor:
        nonlocal bytes_kept
        bytes_kept += tensor.nbytes
        return tensor

    towers_in(made)[0].backbone.register_forward_pre_hook(count)
    for batch in (again, kept):
        calls = bytes_kept = 0
        with saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = made(batch)
        encoded = calls
        loss.backward()
        found.append((encoded, calls, bytes_kept))
    pieces = len(again.texts[0].pieces)
    assert [encoded for encoded, _, _ in found] == [pieces, pieces]
    assert [calls for _, calls, _ in found] == [2 * pieces, pieces]
    assert 20 * found[0][2] < found[1][2]
