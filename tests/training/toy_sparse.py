"""A causal language model small enough to become a sparse tower in seconds, over the words of the toy language."""

from pathlib import Path

import torch

from bartizan_connector.space.spec import RoleSpec
from bartizan_encoders.design import Design
from bartizan_encoders.tower import Tower
from bartizan_training.recipe import Recipe
from bartizan_training.stages.adapt import Adapt, AdaptStage
from bartizan_training.stages.splade import Splade, SpladeStage
from bartizan_training.stages.stage import Stage
from bartizan_training.towers import Towers
from tests.training import toy

ADAPT = """
kind = "adapt"
steps = 30
batch_size = 16
block = 12
learning_rate = 1e-3
texts = [{ kind = "documents", path = "data" }, { kind = "queries", path = "data", split = "train" }]
"""
SPLADE = """
kind = "splade"
steps = 100
batch_size = 32
learning_rate = 1e-2
data = { path = "data" }
flops = { query = 0.03, document = 0.03 }
"""


def tower(folder: Path, *, width: int = 32, layers: int = 1, seed: int = 0) -> Path:
    """A tiny llama with random weights as a sparse tower folder, without special tokens."""
    torch.manual_seed(seed)
    architecture = {
        "model_type": "llama",
        "vocab_size": len(toy.WORDS),
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "intermediate_size": 2 * width,
        "max_position_embeddings": 128,
        "tie_word_embeddings": True,
    }
    roles = {"query": RoleSpec(max_tokens=16), "document": RoleSpec(max_tokens=24)}
    design = Design.sparse(name="toy", roles=roles, special_tokens="none")
    Tower.fresh(architecture, toy.tokenizer(), design).save(folder)
    return folder


def bench(folder: Path) -> Path:
    """A folder with everything that a recipe of these tests needs."""
    tower(folder / "tower")
    toy.collection(folder / "data")
    return folder


def stage(bench: Path, text: str) -> Stage:
    """One stage, built and ready, outside of the loop."""
    table = Recipe.load(toy.recipe(bench, text)).steps[0]
    towers, place = Towers.load(bench / "tower", bench / "tower"), toy.toy_place(bench)
    match table:
        case Adapt():
            return AdaptStage(table, towers, place)
        case Splade():
            return SpladeStage(table, towers, place)
    raise AssertionError(f"{table.kind} is no stage of these")
