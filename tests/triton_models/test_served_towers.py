"""Served towers where users meet them: eval through a server, and doctor's look at one."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from bartizan_connector.base.errors import WrongUse
from bartizan_connector.commands.program import build
from bartizan_connector.encode.triton.contract import model_name
from bartizan_connector.space.spec import TowerSpec
from bartizan_training.demo.servers.ports import free_ports
from bartizan_triton.repository.config import CONFIG_FILE
from tests.exports import export_folder
from tests.judged import write_collection
from tests.served import added
from tests.servers.triton import TritonServer

FRUIT = ("apple", "bread and cheese", "two dates", "a tower of eggs", "figs, grapes", "honey of the tower")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    repository = tmp_path_factory.mktemp("served") / "models"
    version = added(repository, export_folder("bert", "int8"), "tiny-bert")
    added(repository, export_folder("bert", "fp32"), "stalling")
    added(repository, export_folder("bert", "fp32"), "broken").folder.joinpath("model.py").write_text(
        "raise OSError('no')"
    )
    assert version.number == 1
    config = repository / "stalling" / CONFIG_FILE
    config.write_text(
        config.read_text()
        .replace("dynamic_batching {\n}", "dynamic_batching { default_queue_policy { max_queue_size: 8 } }")
        .replace("version_policy {\n  specific {\n    versions: 1\n  }\n}", "")
    )
    running = TritonServer(repository)
    running.start()
    yield running
    running.stop()


def invoked(command: str, *arguments: object) -> Result:
    return CliRunner().invoke(build(command), [command, *map(str, arguments)])


@pytest.mark.server
def test_eval_through_a_server_measures_what_the_export_does_and_says_which_tower_it_was(
    server: TritonServer, tmp_path: Path
) -> None:
    corpus = {f"d{n}": text for n, text in enumerate(FRUIT)}
    queries = {f"q{n}": text for n, text in enumerate(FRUIT)}
    data = write_collection(tmp_path / "data", corpus, queries, test={f"q{n}": {f"d{n}": 1} for n in range(len(FRUIT))})
    tower = export_folder("bert", "int8")
    assert model_name(TowerSpec.read(tower)) == "tiny-bert"
    results = []
    for engine in (["--engine", "onnx"], ["--engine", "triton", "--server", server.url]):
        out = tmp_path / f"{engine[1]}.json"
        run = invoked("eval", data, "--tower", tower, "--out", out, *engine)
        assert run.exit_code == 0, run.output
        results.append(json.loads(out.read_text()))
    here, served = results
    assert served["engine"] == "triton"
    assert served["metrics"] == here["metrics"]
    assert served["tower_id"] == TowerSpec.read(tower).tower_id


def test_eval_needs_both_an_engine_elsewhere_and_its_address(tmp_path: Path) -> None:
    data = write_collection(tmp_path / "data", {"d": "a"}, {"q": "a"}, test={"q": {"d": 1}})
    run = invoked("eval", data, "--tower", export_folder("bert", "int8"), "--engine", "triton")
    assert isinstance(run.exception, WrongUse)
    assert "--server URL" in str(run.exception)


@pytest.mark.server
def test_doctor_says_what_a_server_serves_and_what_will_stall(server: TritonServer) -> None:
    run = invoked("doctor", "--server", server.url, "--json")
    found = [finding for finding in json.loads(run.stdout) if finding["area"].startswith(("server", "model"))]
    told = {finding["what"]: finding for finding in found}
    spec = TowerSpec.read(export_folder("bert", "int8"))
    (fine,) = [what for what in told if spec.tower_id in what]
    assert told[fine]["area"] == "model tiny-bert"
    assert spec.space_id in fine
    assert "python, batches of 64" in fine
    assert told["has a queue policy"]["area"] == "model stalling"
    assert "half a second" in told["has a queue policy"]["way_out"]
    assert told["pins no version, so a restart may load another"]["area"] == "model stalling"
    (broken,) = [what for what in told if "is not ready" in what]
    assert told[broken]["area"] == "model broken"
    assert run.exit_code == 1


@pytest.mark.packaging
def test_doctor_says_that_nobody_is_there() -> None:
    (port,) = free_ports(1)
    run = invoked("doctor", "--server", f"grpc://127.0.0.1:{port}", "--json")
    (finding,) = [each for each in json.loads(run.stdout) if each["area"] == "server"]
    assert (finding["status"], run.exit_code) == ("problem", 4)
    assert "did not answer" in finding["what"]


@pytest.mark.parametrize("url", ["localhost:8001", "http://localhost:8000", "grpc://localhost", "grpc://u:p@h:1"])
def test_doctor_refuses_what_is_no_address(url: str) -> None:
    run = invoked("doctor", "--server", url, "--json")
    assert run.exit_code == 2
    assert "grpc://host:port" in run.stdout
