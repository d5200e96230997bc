"""What each kind of stage does to real, tiny towers: what is learned, what stays frozen, which space comes out."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from bartizan_connector.base.errors import SpaceMismatch, WrongUse
from bartizan_connector.space.spec import TowerSpec
from bartizan_encoders.local import TorchEncoder
from bartizan_encoders.tower import Tower
from bartizan_encoders.weights import read_weights
from bartizan_training.data.collections import BeirData
from bartizan_training.data.pairs import read_pairs
from bartizan_training.data.samplers import PairSampler
from bartizan_training.loop import train
from bartizan_training.recipe import Recipe
from bartizan_training.settings import PairsTable
from bartizan_training.towers import Towers
from tests.training import toy
from tests.training.toy import CONTRASTIVE, DISTIL, REFINE, with_keys


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tower, data, and a run of all three stages in `run`."""
    folder = toy.bench(tmp_path_factory.mktemp("bench"))
    torch.set_num_threads(1)
    train(Recipe.load(toy.recipe(folder, CONTRASTIVE, DISTIL, REFINE)), folder / "run")
    return folder


def losses(run: Path, stage: int) -> list[float]:
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [record["loss"] for record in records if record["stage"] == stage]


@pytest.mark.packaging
def test_contrastive_training_lowers_the_loss_and_finds_held_out_queries(bench: Path) -> None:
    towers = toy.towers_of(bench / "run", "contrastive")
    before = toy.found_first(bench / "data", bench / "tower", bench / "tower")
    after = toy.found_first(bench / "data", towers / "document", towers / "query")
    assert losses(bench / "run", 1)[-1] < 0.2 * losses(bench / "run", 1)[0]
    assert before < 0.1
    assert after > 0.75


def test_the_student_finds_in_the_teachers_index_what_the_teacher_finds(bench: Path) -> None:
    towers = toy.towers_of(bench / "run", "contrastive"), toy.towers_of(bench / "run", "distil_query")
    data = BeirData.read(bench / "data")
    held_out = [data.queries[id] for id in data.qrels("test")]
    index = TorchEncoder.open(towers[0] / "document").encode(list(data.corpus.values()), "document").values
    tops = [
        np.argsort(-(TorchEncoder.open(folder / "query").encode(held_out, "query").values @ index.T), axis=1)[:, :10]
        for folder in towers
    ]
    agreement = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(*tops, strict=True)])
    assert agreement > 0.9
    assert np.mean(tops[0][:, 0] == tops[1][:, 0]) > 0.9


def test_refinement_keeps_what_the_student_can(bench: Path) -> None:
    scores = [
        toy.found_first(bench / "data", towers / "document", towers / "query")
        for towers in (toy.towers_of(bench / "run", "distil_query"), toy.towers_of(bench / "run", "refine"))
    ]
    assert scores[1] > scores[0] - 0.03
    assert losses(bench / "run", 3)[-1] < 0.5


def test_the_run_ends_with_two_towers_of_one_space(bench: Path) -> None:
    document, query = (TowerSpec.read(bench / "run/towers" / role) for role in ("document", "query"))
    assert document.space_id == document.tower_id == query.space_id != query.tower_id
    assert set(query.roles) == {"query"}
    assert (document.name, query.name) == ("toy", "toy-query")
    assert Tower.load(bench / "run/towers/query").backbone.config.num_hidden_layers == 1


def test_tied_towers_are_written_under_both_roles(bench: Path) -> None:
    towers = toy.towers_of(bench / "run", "contrastive")
    assert TowerSpec.read(towers / "document") == TowerSpec.read(towers / "query")
    assert TowerSpec.read(towers / "document").space is None


def test_the_document_tower_is_the_same_file_by_file_after_the_student_is_trained(bench: Path) -> None:
    trained, final = toy.towers_of(bench / "run", "contrastive") / "document", bench / "run/towers/document"
    for path in trained.iterdir():
        assert path.read_bytes() == (final / path.name).read_bytes()


@pytest.mark.parametrize("text", [DISTIL, REFINE], ids=["distil_query", "refine"])
def test_frozen_towers_get_no_gradient_and_do_not_change(bench: Path, text: str) -> None:
    towers = toy.towers_of(bench / "run", "contrastive")
    start = Towers.load(towers / "document", bench / "run/towers/query")
    teacher = start if text is REFINE else Towers(start.document, start.document)
    before = start.document.spec.weights_hash
    stage = toy.stage(bench, text, teacher)
    stage(stage.batch(0)).backward()
    assert all(parameter.grad is not None for parameter in stage.parameters())
    assert all(parameter.grad is None for parameter in start.document.parameters())
    assert not {id(p) for p in stage.parameters()} & {id(p) for p in start.document.parameters()}
    assert start.document.spec.weights_hash == before


def test_untied_towers_grow_apart_and_share_the_document_towers_space(bench: Path, tmp_path: Path) -> None:
    text = with_keys(CONTRASTIVE, tied=False, steps=3)
    train(Recipe.load(toy.recipe(bench, text)), tmp_path / "run")
    document, query = (TowerSpec.read(tmp_path / "run/towers" / role) for role in ("document", "query"))
    assert document.weights_hash != query.weights_hash
    assert (set(document.roles), set(query.roles)) == ({"document"}, {"query"})
    assert query.space_id == document.space_id == document.tower_id


def test_a_student_of_another_size_gets_a_head_into_the_space(bench: Path, tmp_path: Path) -> None:
    toy.tower(bench / "small", layers=1, width=16, seed=5)
    text = with_keys(DISTIL, layers=None, student="small", epochs=None, steps=3)
    train(Recipe.load(toy.recipe(bench, text)), tmp_path / "run")
    tower = Tower.load(tmp_path / "run/towers/query")
    assert tower.spec.head == "linear"
    assert tower.spec.space_id == TowerSpec.read(tmp_path / "run/towers/document").space_id
    assert TorchEncoder(tower).encode(["ask1 ask2"], "query").values.shape == (1, 32)


def test_raw_and_normalised_targets_are_what_the_recipe_says(bench: Path) -> None:
    start = Towers.load(bench / "tower", bench / "tower")
    distil = DISTIL.replace('split = "train"', 'split = "train", held_out_split = "none"')
    raw = toy.stage(
        bench, with_keys(distil, layers=[0, 2]) + '\nloss = { w_cos = 0, w_mse = 1, mse_on = "raw" }', start
    )
    unit = toy.stage(
        bench, with_keys(distil, layers=[0, 2]) + '\nloss = { w_cos = 0, w_mse = 1, mse_on = "normalised" }', start
    )
    cosine = toy.stage(bench, with_keys(distil, layers=[0, 2]), start)
    values = [stage(stage.batch(0)).item() for stage in (raw, unit, cosine)]
    assert values[1] == pytest.approx(2 * values[2], rel=1e-4)
    assert values[0] > 2 * values[1]


TOKENS = DISTIL + "loss = { w_cos = 0.5, w_tokens = 2 }"


def test_token_by_token_the_loss_is_of_vectors_and_of_hidden_states(bench: Path) -> None:
    towers = Towers.load(bench / "run/towers/document", bench / "run/towers/document")
    tokens, vectors = (toy.stage(bench, with_keys(text, layers=[0, 2]), towers) for text in (TOKENS, DISTIL))
    packed, teacher, gaps = tokens.batch(0).texts[0], towers.query, []
    for ids, mask in packed.pieces:
        pairs = zip(tokens.student.hidden(ids, mask), teacher.hidden(ids, mask), mask.bool(), strict=True)
        gaps += [1 - torch.cosine_similarity(s[kept], t[kept], dim=-1).mean().item() for s, t, kept in pairs]
    expected = 0.5 * vectors(vectors.batch(0)).item() + 2 * np.mean(gaps)
    assert tokens(tokens.batch(0)).item() == pytest.approx(expected, rel=1e-5)
    assert tokens.batch(0).beside == ()


def test_token_by_token_the_teacher_gets_no_gradient_and_is_no_part_of_a_checkpoint(bench: Path) -> None:
    towers = Towers.load(bench / "run/towers/document", bench / "run/towers/document")
    stage = toy.stage(bench, with_keys(TOKENS, layers=[0, 2]), towers)
    stage(stage.batch(0)).backward()
    assert all(parameter.grad is not None for parameter in stage.parameters())
    assert all(parameter.grad is None for parameter in towers.query.parameters())
    assert not {id(p) for p in stage.parameters()} & {id(p) for p in towers.query.parameters()}


@pytest.mark.packaging
def test_token_by_token_a_student_comes_nearer_to_its_teacher(bench: Path, tmp_path: Path) -> None:
    towers = toy.towers_of(bench / "run", "contrastive")
    teacher = TorchEncoder.open(towers / "query")
    texts = list(BeirData.read(bench / "data").queries.values())[:64]
    cosines = []
    for name, text in (("vectors", DISTIL), ("tokens", DISTIL + "loss = { w_tokens = 1 }")):
        short = with_keys(text, layers=[0, 2], epochs=None, steps=30)
        train(Recipe.load(toy.recipe(bench, short), tower=towers / "document"), tmp_path / name)
        student = TorchEncoder.open(tmp_path / name / "towers/query")
        cosines.append(
            (student.encode(texts, "query").values * teacher.encode(texts, "query").values).sum(axis=1).mean()
        )
    assert cosines[1] > cosines[0]


def test_token_by_token_a_student_of_another_width_is_refused(bench: Path) -> None:
    toy.tower(bench / "narrow", layers=1, width=16, seed=5)
    with pytest.raises(WrongUse, match="differ in tokenizer, query prefix or length, or width"):
        toy.stage(bench, with_keys(TOKENS, layers=None, student="narrow"))


def test_a_teachers_vectors_are_computed_once_and_never_for_other_texts(bench: Path) -> None:
    log = bench / "log.txt"
    texts = with_keys(DISTIL, texts=None) + '\ntexts = [{ kind = "lines", path = "log.txt" }]'

    def vectors() -> set[Path]:
        return set(bench.glob("scratch/artefacts/query-vectors/*/vectors.npy"))

    log.write_text("".join(f"ask{i}\n" for i in range(32)))
    before = vectors()
    first = toy.stage(bench, texts)
    (kept,) = vectors() - before
    stamp = kept.stat().st_mtime_ns
    second = toy.stage(bench, texts)
    assert vectors() - before == {kept}
    assert kept.stat().st_mtime_ns == stamp
    assert torch.equal(first.batch(0).beside[0], second.batch(0).beside[0])
    log.write_text("".join(f"ask{i + 1}\n" for i in range(32)))
    other = toy.stage(bench, texts)
    assert len(vectors() - before) == 2  # side by side: those of the first texts are there still
    assert kept.stat().st_mtime_ns == stamp
    assert not torch.equal(first.batch(0).beside[0], other.batch(0).beside[0])


@pytest.mark.parametrize("mask", [True, False])
@pytest.mark.parametrize("kind", ["contrastive", "refine"])
def test_the_loss_is_info_nce_over_the_batch_that_was_drawn(bench: Path, kind: str, mask: bool) -> None:
    loss = f"loss = {{ temperature = 0.1, mask_known = {str(mask).lower()} }}"
    stage = toy.stage(bench, with_keys(CONTRASTIVE, kind=kind, max_tokens=None) + f"\n{loss}")
    pairs = read_pairs(PairsTable(path=bench / "data"))
    drawn = PairSampler(pairs, PairsTable(path=bench / "data"), 32, seed=(0, 1)).batch(3)
    encoder = TorchEncoder.open(bench / "tower")
    queries = encoder.encode([pairs.queries[i] for i in drawn.queries], "query").values.astype(np.float64)
    documents = encoder.encode([pairs.documents[i] for i in drawn.documents], "document").values.astype(np.float64)
    same = drawn.documents[None, :] == drawn.documents[:, None]
    known = np.array([[document in pairs.positives[query] for document in drawn.documents] for query in drawn.queries])
    assert (same & known).sum() > 32
    shares = np.exp(queries @ documents.T / 0.1)
    kept = np.where(known & ~np.eye(32, dtype=bool), 0.0, shares) if mask else shares
    expected = -np.log(shares.diagonal() / kept.sum(axis=1)).mean()
    assert stage(stage.batch(3)).item() == pytest.approx(expected, rel=1e-4)


def test_hard_negatives_come_into_the_loss(bench: Path) -> None:
    data = BeirData.read(bench / "data")
    documents = list(data.corpus)
    lines = [
        {"query": id, "negatives": [d for d in documents if d not in good][:3]}
        for id, good in data.qrels("train").items()
    ]
    (bench / "negatives.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    text = with_keys(CONTRASTIVE, data=None)
    plain = toy.stage(bench, text + '\ndata = { path = "data" }')
    hard = toy.stage(bench, text + '\ndata = { path = "data", negatives = "negatives.jsonl", negatives_per_query = 2 }')
    batch = hard.batch(0)
    assert batch.beside[0].shape == (32, 96)
    assert hard(batch).item() > plain(plain.batch(0)).item() + 0.5


def test_bf16_inside_the_towers_gives_nearly_the_same_loss(bench: Path) -> None:
    full, half = (toy.stage(bench, with_keys(CONTRASTIVE, precision=precision)) for precision in ("fp32", "bf16"))
    expected, got = full(full.batch(0)), half(half.batch(0))
    assert got.dtype == torch.float32
    assert got.item() != expected.item()
    assert got.item() == pytest.approx(expected.item(), rel=0.03)


def test_texts_are_cut_for_training_but_not_in_the_tower(bench: Path, tmp_path: Path) -> None:
    text = with_keys(CONTRASTIVE, max_tokens=4, steps=1)
    stage = toy.stage(bench, text)
    assert max(ids.shape[1] for ids, _ in stage.batch(0).texts[0].pieces) == 4
    train(Recipe.load(toy.recipe(bench, text)), tmp_path / "run")
    assert TowerSpec.read(tmp_path / "run/towers/query").roles == TowerSpec.read(bench / "tower").roles


def test_frozen_embeddings_stay(bench: Path, tmp_path: Path) -> None:
    text = with_keys(CONTRASTIVE, freeze_embeddings=True, steps=2)
    train(Recipe.load(toy.recipe(bench, text)), tmp_path / "run")
    before, after = read_weights(bench / "tower"), read_weights(tmp_path / "run/towers/query")
    same = {name for name in before if torch.equal(before[name], after[name])}
    assert "backbone.embeddings.word_embeddings.weight" in same
    assert "backbone.embeddings.position_embeddings.weight" not in same


def test_tying_two_different_towers_is_refused(bench: Path) -> None:
    start = Towers.load(bench / "run/towers/document", bench / "run/towers/query")
    with pytest.raises(WrongUse, match="set tied = false"):
        toy.stage(bench, CONTRASTIVE, start)


def test_towers_of_two_spaces_cannot_start_a_run(bench: Path, tmp_path: Path) -> None:
    recipe = Recipe.load(toy.recipe(bench, REFINE, head='query_tower = "run/towers/query"'))
    with pytest.raises(SpaceMismatch) as refusal:
        train(recipe, tmp_path / "run")
    assert TowerSpec.read(bench / "tower").space_id in str(refusal.value)
    assert refusal.value.exit_code == 3


def test_embedding_and_loss_are_apart(bench: Path) -> None:
    for text in (CONTRASTIVE, with_keys(CONTRASTIVE, tied=False), DISTIL, DISTIL + "loss = { w_tokens = 1 }", REFINE):
        stage = toy.stage(bench, text)
        batch = stage.batch(0)
        whole = stage(batch)
        whole.backward()
        expected = [parameter.grad.clone() for parameter in stage.parameters() if parameter.grad is not None]
        stage.zero_grad()
        embedded = stage.embed(batch)
        leaves = {name: tensor.detach().requires_grad_() for name, tensor in embedded.items()}
        loss = stage.loss(leaves, batch)
        loss.backward()
        carried = [(tensor, leaves[name].grad) for name, tensor in embedded.items() if tensor.requires_grad]
        torch.autograd.backward(*zip(*[pair for pair in carried if pair[1] is not None], strict=True))
        found = [parameter.grad for parameter in stage.parameters() if parameter.grad is not None]
        assert loss.item() == whole.item()
        assert len(found) == len(expected)
        assert all(torch.allclose(a, b, atol=1e-7) for a, b in zip(found, expected, strict=True))
