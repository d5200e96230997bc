"""The demo runs end to end from nothing, repeats itself, recommends only what works, and destroys nothing foreign."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from bartizan_connector.base.errors import WrongUse
from bartizan_connector.config import Config
from bartizan_connector.space.spec import TowerSpec
from bartizan_encoders.importing import Wishes, import_tower
from bartizan_training.demo import untrained
from bartizan_training.demo.layout import Layout
from bartizan_training.demo.shell import program, typed
from bartizan_training.demo.summary import suggestions
from bartizan_training.evaluate.results import Result

NEXT = "What to type next"


def test_a_foreign_folder_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "thesis.txt").write_text("years of work")
    with pytest.raises(WrongUse, match="is not empty and no demo made it"):
        Layout(tmp_path).clear({})
    with pytest.raises(WrongUse, match="is a file"):
        Layout(tmp_path / "corpus" / "thesis.txt").clear({})
    assert (tmp_path / "corpus" / "thesis.txt").read_text() == "years of work"


def test_a_demo_gives_way_to_the_next_but_for_files_of_other_names(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "demo")
    assert not layout.clear({"seed": 0})
    for made in (layout.corpus, layout.query, layout.root / "index.bartizan", layout.run):
        made.mkdir(parents=True)
    layout.recipe.write_text("")
    (layout.root / "notes.txt").write_text("mine")
    assert layout.clear({"seed": 1})
    assert sorted(path.name for path in layout.root.iterdir()) == ["demo.json", "notes.txt"]
    assert json.loads((layout.root / "demo.json").read_text()) == {"seed": 1}


def test_a_failing_step_ends_the_demo_with_its_exit_code(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    script = f"from bartizan_training.demo.shell import Shell; Shell().run('tower', 'show', {str(tmp_path)!r})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 1  # typer.Exit outside a command
    assert f"tower show {tmp_path}" in done.stdout
    assert "is not a tower" in done.stderr
    assert "failed with exit code 2" in done.stderr


@pytest.mark.packaging
def test_ctrl_c_in_a_demo_lets_its_command_end_and_says_how_to_go_on(tmp_path: Path) -> None:
    script = """
import os, signal, sys, threading
from bartizan_connector.base.errors import Interrupted
from bartizan_training.demo import shell
child = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_DFL); print('begun', flush=True); time.sleep(60)"
shell.sys.executable = sys.executable
def ended(command):
    return real([sys.executable, "-c", child])
real, shell._ended = shell._ended, ended
threading.Timer(1.0, lambda: os.killpg(os.getpgid(0), signal.SIGINT)).start()
try:
    shell.Shell().run("train", "x")
except Interrupted as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=50, start_new_session=True
    )
    assert "interrupted; what is finished stays: go on by typing the commands that are shown" in done.stdout, (
        done.stderr
    )


def test_commands_are_shown_as_the_shell_takes_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "/nowhere")
    words = ("search", "who's there", "--config", Path("my demo/bartizan.toml"))
    shown = shlex.split(typed(words))
    assert shown[-4:] == [str(word) for word in words]
    assert Path(shown[0]).exists()
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    assert program() == "bartizan"


def test_the_configuration_names_what_the_demo_makes(tmp_path: Path) -> None:
    shipped = Path(__file__).parents[3] / "training/bartizan_training/demo/bartizan.toml"
    layout = Layout(tmp_path)
    layout.config.write_text(shipped.read_text(encoding="utf-8"), encoding="utf-8")
    config = Config.load(layout.config, environment={})
    space = config.spaces["dense"]
    assert (space.document_tower, space.query_tower) == (layout.document, layout.query)
    assert config.source is not None
    assert config.source.path == layout.corpus / "corpus.jsonl"


def test_an_untrained_model_is_the_same_for_the_same_seed_and_reads_any_word(tmp_path: Path) -> None:
    texts = ["Pause the program for a while.", "Compare two files, line by line.", "näïve 日本 text"]
    for name, seed in (("one", 0), ("same", 0), ("other", 1)):
        untrained.write(texts, tmp_path / name, seed=seed)
        import_tower(str(tmp_path / name), Wishes(name="t", pooling="mean")).save(tmp_path / f"t-{name}")
    towers = {name: TowerSpec.read(tmp_path / f"t-{name}").tower_id for name in ("one", "same", "other")}
    assert towers["one"] == towers["same"] != towers["other"]
    pieces = untrained.Tokenizer.from_file(str(tmp_path / "one" / "tokenizer.json"))
    assert pieces.encode("Pause while comparing").tokens == [
        *("[CLS]", "pause", "while", "compa", "##r", "##i", "##n", "##g", "[SEP]")
    ]
    assert "[UNK]" in pieces.encode("ж").tokens


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder that a quick demo ran in, and what it told."""
    folder = tmp_path_factory.mktemp("somewhere")
    return folder, demo(folder, "my demo")


def demo(folder: Path, out: str) -> str:
    command = [sys.executable, "-m", "bartizan_connector", "demo", "--quick", "--from-scratch", "--out", out]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.mark.packaging
@pytest.mark.timeout(900)
def test_every_command_that_the_demo_recommends_works(told: tuple[Path, str]) -> None:
    folder, story = told
    recommended = story.split(NEXT)[1]
    commands = [line.strip() for line in recommended.splitlines() if line.strip().startswith(program_in(folder))]
    assert len(commands) == len(suggestions(Layout(Path("my demo"))))
    for command in commands:
        done = subprocess.run(command, cwd=folder, shell=True, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    python = recommended.split("In Python:")[1].replace("\n   ", "\n")
    done = subprocess.run([sys.executable, "-c", python], cwd=folder, capture_output=True, text=True, check=True)
    assert len(done.stdout.strip().splitlines()) == 5


@pytest.mark.packaging
@pytest.mark.timeout(900)
def test_the_story_holds_its_figures_and_its_hits(told: tuple[Path, str]) -> None:
    folder, story = told
    layout = Layout(folder / "my demo")
    teacher, distilled = (Result.read(layout.result(name)) for name in ("teacher", "distilled"))
    for result in (teacher, distilled):
        assert result.documents == 900
        assert f"{result.metrics['nDCG@10']:.4f}" in story
    assert distilled.space_id == teacher.space_id == teacher.tower_id != distilled.query_tower_id
    assert story.count("search 'pause the program for a while'") == 1
    answers = story.split("search 'pause the program for a while'")[1]
    assert re.search(r"^  1  \S.+ dense #\d+ .+ lexical #\d+ ", answers, flags=re.MULTILINE)


@pytest.mark.packaging
@pytest.mark.timeout(900)
def test_the_same_seed_gives_the_same_hits(told: tuple[Path, str]) -> None:
    folder, story = told
    again = demo(folder, "my demo")
    assert hits(again) == hits(story) != []


def hits(story: str) -> list[str]:
    return [line for line in story.split("Ask\n")[1].split(NEXT)[0].splitlines() if " dense #" in line]


def program_in(folder: Path) -> str:
    before = Path.cwd()
    os.chdir(folder)
    try:
        return program()
    finally:
        os.chdir(before)
