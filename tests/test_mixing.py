"""Two spaces are mixed at every command: each refuses with exit code 3, before a result or a write."""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from bartizan_connector.__main__ import main
from bartizan_encoders.tower import Tower
from bartizan_triton.export import export_tower
from tests.training import toy

CONFIG = """
[collection]
name = "things"
{spaces}
[encoders.document]
threads = 1
[encoders.query]
threads = 1
[backend]
uri = "{uri}"
lexical = {lexical}
[source]
path = "data/corpus.jsonl"
"""
SPACE = """
[spaces.{leg}]
document_tower = "exports/{document}"
query_tower = "exports/{query}"
{pin}
"""
BACKENDS = ({"uri": "index.bartizan", "lexical": "true"}, {"uri": "index.db", "lexical": '"words"'})
OWN = {"dense": "a", "second": "c"}
"""The tower that fills each leg."""
FOREIGN = {"dense": "b", "second": "d"}
"""One of another space, for each leg."""


@dataclass(frozen=True)
class World:
    """A folder with four unrelated towers `a` to `d`, a query tower `small` cut out of `a`, their exports, and data."""

    root: Path
    backend: dict[str, str]

    def config(self, leg: str = "dense", document: str = "", query: str = "", pin: str = "") -> str:
        """The configuration of two legs, each with its own tower, but for what is said of one of them."""
        spaces = []
        for each, own in OWN.items():
            said = each == leg
            spaces.append(
                SPACE.format(
                    leg=each,
                    document=(said and document) or own,
                    query=(said and query) or own,
                    pin=f'space_id = "{pin}"' if said and pin else "",
                )
            )
        (self.root / "bartizan.toml").write_text(
            CONFIG.format(spaces="".join(spaces), **self.backend), encoding="utf-8"
        )
        return str(self.root / "bartizan.toml")

    def space(self, name: str) -> str:
        return str(json.loads((self.root / "exports" / name / "tower.json").read_text())["space_id"])

    def path(self, name: str) -> str:
        return str(self.root / name)


@pytest.fixture(
    scope="module",
    params=[BACKENDS[0], pytest.param(BACKENDS[1], marks=pytest.mark.server)],
    ids=lambda backend: backend["uri"],
)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> World:
    root = tmp_path_factory.mktemp("world")
    toy.collection(root / "data", queries=40)
    for seed, name in enumerate("abcd"):
        toy.tower(root / "towers" / name, layers=2, seed=seed)
    large = Tower.load(root / "towers/a")
    small = large.cut([0])
    small.spec = small.spec.aligned_to(large.spec)
    small.save(root / "towers/small")
    for name in ("a", "b", "c", "d", "small"):
        export_tower(root / "towers" / name, root / "exports" / name)
    world = World(root, request.param)
    assert run("ingest", world.config()) == 0
    return world


@pytest.fixture
def world(made: World, tmp_path: Path) -> World:
    """A copy that a test may damage."""
    shutil.copytree(made.root, tmp_path / "world")
    return World(tmp_path / "world", made.backend)


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as exited:
        main(arguments)
    return int(exited.value.code or 0)


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def other_query_tower(world: World, leg: str) -> None:
    world.config(leg, query=FOREIGN[leg])


def other_towers_than_the_collection_has(world: World, leg: str) -> None:
    world.config(leg, document=FOREIGN[leg], query=FOREIGN[leg])


def the_towers_of_another_leg(world: World, leg: str) -> None:
    (other,) = (name for each, name in OWN.items() if each != leg)
    world.config(leg, document=other, query=other)


def another_space_is_pinned(world: World, leg: str) -> None:
    world.config(leg, pin=world.space(FOREIGN[leg]))


def edited_spec(world: World, leg: str) -> None:
    edit(world.root / "exports" / OWN[leg] / "tower.json", '"mean"', '"cls"')


def edited_spec_that_claims_the_space(world: World, leg: str) -> None:
    world.config(leg, query=FOREIGN[leg])
    claimed = f'"space": "{world.space(OWN[leg])}"'
    edit(world.root / "exports" / FOREIGN[leg] / "tower.json", '"space": null', claimed)


def model_of_another_tower(world: World, leg: str) -> None:
    for name in ("model.onnx", "parity.json"):
        shutil.copy(world.root / "exports" / FOREIGN[leg] / name, world.root / "exports" / OWN[leg] / name)


def tokenizer_of_another_tower(world: World, leg: str) -> None:
    edit(world.root / "exports" / OWN[leg] / "tokenizer.json", '"thing0"', '"thing00"')


MIXED = [
    other_query_tower,
    other_towers_than_the_collection_has,
    the_towers_of_another_leg,
    another_space_is_pinned,
    edited_spec,
    edited_spec_that_claims_the_space,
    model_of_another_tower,
    tokenizer_of_another_tower,
]
COMMANDS = {"search": ("search", "ask1 ask2", "--config"), "ingest": ("ingest",), "doctor": ("doctor", "--config")}


@pytest.mark.packaging
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("leg", OWN)
@pytest.mark.parametrize("mix", MIXED, ids=lambda mix: mix.__name__)
def test_a_configured_command_refuses_mixed_spaces(
    made: World,
    world: World,
    mix: Callable[[World, str], None],
    leg: str,
    command: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = world.config()
    mix(world, leg)
    edit(world.root / "data/corpus.jsonl", "thing1 ", "thing2 ")
    assert run(*COMMANDS[command], path) == 3
    shown = capsys.readouterr()
    if command != "doctor":
        assert shown.out == ""
        assert re.search("expected space (other than )?tw-", shown.err)
    assert_nothing_was_written(made, world, capsys)


def assert_nothing_was_written(made: World, world: World, capsys: pytest.CaptureFixture[str]) -> None:
    """Its own towers find in the collection just what was there: every changed document is still to be written."""
    shutil.rmtree(world.root / "exports")
    shutil.copytree(made.root / "exports", world.root / "exports")
    assert run("ingest", world.config(), "--json") == 0
    report = json.loads(capsys.readouterr().out)
    changed = sum("thing2 " in line for line in (world.root / "data/corpus.jsonl").read_text().splitlines())
    assert 0 < report["written"] <= changed
    assert report["written"] + report["unchanged"] == report["read"]


def test_the_query_tower_of_the_space_is_welcome(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    path = world.config(query="small", pin=world.space("a"))
    assert run("search", "ask1 ask2", "--json", "--config", path) == 0
    answer = json.loads(capsys.readouterr().out)
    assert {leg: by["space_id"] for leg, by in answer["encoded"].items()} == {
        leg: world.space(own) for leg, own in OWN.items()
    }
    assert answer["encoded"]["dense"]["tower_id"] != world.space("a")
    assert answer["degraded"] is None
    assert answer["results"]


def test_a_query_tower_is_welcome_in_its_own_leg_only(world: World) -> None:
    assert run("search", "ask1 ask2", "--config", world.config("second", query="small")) == 3


@pytest.mark.parametrize("engine", ["torch", "onnx"])
def test_eval_refuses_two_spaces_and_writes_no_result(
    world: World, engine: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("eval", world.path("data"), "--engine", engine, "--out", world.path("result.json"))
    assert run(*arguments, "--tower", world.path("towers/a"), "--query-tower", world.path("towers/b")) == 3
    assert not (world.root / "result.json").exists()
    assert capsys.readouterr().out == ""
    assert run(*arguments, "--tower", world.path("towers/a"), "--query-tower", world.path("towers/small")) == 0


@pytest.mark.parametrize("command", [("tower", "show"), ("export", "--out", "{out}"), ("eval", "{data}", "--tower")])
def test_an_edited_spec_stops_every_command_that_reads_the_tower(
    world: World, command: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    edit(world.root / "towers/a/tower.json", '"mean"', '"cls"')
    filled = [part.format(out=world.path("out"), data=world.path("data")) for part in command]
    assert run(*filled, world.path("towers/a")) == 3
    shown = capsys.readouterr()
    assert re.search(r"expected space tw-\w+, but tw-\w+ came", shown.err)
    assert shown.out == ""
    assert not (world.root / "out").exists()


def test_weights_of_another_tower_are_not_exported(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(world.root / "towers/b/model.safetensors", world.root / "towers/a/model.safetensors")
    assert run("export", world.path("towers/a"), "--out", world.path("out")) == 3
    assert not (world.root / "out").exists()


def test_a_recipe_cannot_begin_with_towers_of_two_spaces(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = world.root / "recipe.toml"
    stage = toy.with_keys(toy.DISTIL, epochs=1)
    recipe.write_text(
        f'name = "x"\ntower = "towers/a"\nquery_tower = "towers/b"\n[[steps]]\n{stage}\n', encoding="utf-8"
    )
    assert run("train", str(recipe), "--out", world.path("run")) == 3
    assert not (world.root / "run/towers").exists()
