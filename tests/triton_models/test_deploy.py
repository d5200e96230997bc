"""Deploy on the real server: no request fails and no answer mixes versions, whatever becomes of the new one."""

import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from bartizan_connector.base.errors import Retry, SpaceMismatch, Stop
from bartizan_connector.commands.program import build
from bartizan_connector.encode.onnx import OnnxEncoder
from bartizan_connector.encode.triton.calls import Access
from bartizan_connector.space.spec import TowerSpec
from bartizan_connector.space.vectors import Floats
from bartizan_triton.deploy import deploy
from bartizan_triton.export import export_tower
from bartizan_triton.gate import Passed
from bartizan_triton.golden import golden_texts
from bartizan_triton.repository.shelf import model_in
from tests.encoders import tiny
from tests.exports import export_folder, tower_folder
from tests.served import added, asking
from tests.servers.triton import TritonServer

pytestmark = pytest.mark.server

TEXTS = golden_texts(32)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[TritonServer]:
    """Serves version 1 of `model`, the fp32 export."""
    repository = tmp_path / "models"
    added(repository, export_folder("bert", "fp32"), "model")
    running = TritonServer(repository)
    running.start()
    yield running
    running.stop()


def deployed(server: TritonServer, number: int, *others: TritonServer, dry_run: bool = False) -> Passed | None:
    model = model_in(server.repository, "model")
    places = [Access(url=each.url) for each in (server, *others)]
    return deploy(server.repository, model, model.versions[number], places, say=print, dry_run=dry_run)


def vectors_by_tower() -> dict[str, Floats]:
    """What each version gives for TEXTS, in this process."""
    found = {}
    for precision in ("fp32", "int8"):
        encoder = OnnxEncoder.open(export_folder("bert", precision), threads=1)  # type: ignore[arg-type]
        values = encoder.encode(TEXTS, "document").values
        assert isinstance(values, np.ndarray)
        found[encoder.spec.tower_id] = values
    return found


class Clients:
    """Eight of them, that ask without a pause; every answer must be one tower's, for each text."""

    def __init__(self, server: TritonServer) -> None:
        self._expected = vectors_by_tower()
        self._encoders = [asking(server, export_folder("bert", "fp32"), "model") for _ in range(4)]
        self._stop = threading.Event()
        self.failures: list[BaseException] = []
        self.answers: dict[str, int] = {}

    @contextmanager
    def asking(self) -> Iterator[None]:
        threads = [threading.Thread(target=self._ask, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()
            for encoder in self._encoders:
                encoder.close()

    def _ask(self, number: int) -> None:
        encoder = self._encoders[number % 4]  # two threads share one
        repeat = 1 if number < 4 else 8  # short calls, and ones of many requests
        turn = number
        while not self._stop.is_set():
            turn += 1
            picked = [turn % len(TEXTS)] if number < 2 else [*range(len(TEXTS))] * repeat
            try:
                came = encoder.encode([TEXTS[at] for at in picked], "document", timeout=30)
                np.testing.assert_allclose(came.values, self._expected[came.tower_id][picked], atol=1e-5)
            except BaseException as error:  # noqa: BLE001  told by the test
                self.failures.append(error)
                return
            self.answers[came.tower_id] = self.answers.get(came.tower_id, 0) + 1


def test_a_swap_under_eight_clients_fails_no_request_and_mixes_no_answer(server: TritonServer) -> None:
    added(server.repository, export_folder("bert", "int8"), "model")
    assert model_in(server.repository, "model").pinned == 1  # an export alone puts nothing into use
    clients = Clients(server)
    with clients.asking():
        passed = deployed(server, 2)
        deployed(server, 1)
        deployed(server, 2)
    assert clients.failures == []
    assert set(clients.answers) == set(vectors_by_tower())
    assert passed is not None
    assert passed.cosine > 0.9999
    assert model_in(server.repository, "model").pinned == 2


def test_a_restarted_server_serves_what_was_deployed(server: TritonServer) -> None:
    added(server.repository, export_folder("bert", "int8"), "model")
    deployed(server, 2)
    client = asking(server, tower_folder("bert"), "model")
    server.kill()
    server.start()
    assert client.encode(["a"], "query", timeout=20).tower_id == TowerSpec.read(export_folder("bert", "int8")).tower_id
    client.close()


def unreadable(folder: Path) -> None:
    (folder / "model.py").write_text("raise ValueError('this is broken')\n")


def other_vectors(folder: Path) -> None:
    code = (folder / "model.py").read_text()
    assert "found = self._session.run" in code
    (folder / "model.py").write_text(code.replace("found = self._session.run", "found = _wrong(self._session).run"))
    with (folder / "model.py").open("a") as file:
        file.write(
            "\n\nclass _wrong:\n    def __init__(self, session): self._session = session\n"
            "    def run(self, *a):\n        found = self._session.run(*a)\n"
            "        return [found[0][:, ::-1].copy(), *found[1:]]\n"
        )


def other_tower(folder: Path) -> None:
    shutil.copyfile(folder.parent / "1" / "model.onnx", folder / "model.onnx")


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        (unreadable, "cannot load version 2 of model 'model'.*this is broken"),
        (other_vectors, "does not agree with its export: a vector has cosine"),
        (other_tower, "not the file that passed the parity gate"),
    ],
)
def test_a_broken_version_is_taken_back_while_the_old_one_serves(
    server: TritonServer, broken: Callable[[Path], None], why: str
) -> None:
    version = added(server.repository, export_folder("bert", "int8"), "model")
    broken(version.folder)
    clients = Clients(server)
    with clients.asking(), pytest.raises(Stop, match=f"(?s){why}.*was taken back; nothing else changed"):
        deployed(server, 2)
    assert clients.failures == []
    assert set(clients.answers) == {TowerSpec.read(export_folder("bert", "fp32")).tower_id}
    assert model_in(server.repository, "model").pinned == 1
    served = asking(server, tower_folder("bert"), "model")
    assert served.spec.precision == "fp32"
    served.close()


def test_an_answer_of_another_tower_than_the_version_says_is_refused(server: TritonServer) -> None:
    shutil.copyfile(  # a version's files are edited, behind everybody's back
        added(server.repository, export_folder("bert", "int8"), "other").folder / "model.onnx",
        server.repository / "model" / "1" / "model.onnx",
    )
    server.kill()
    server.start()
    client = asking(server, tower_folder("bert"), "model")
    with pytest.raises(
        Stop, match=r"answers as another tower than its configuration says.*a version's files were edited"
    ):
        client.encode(["a"], "query")
    client.close()


def test_a_dry_run_looks_and_changes_nothing(server: TritonServer) -> None:
    added(server.repository, export_folder("bert", "int8"), "model")
    assert deployed(server, 2, dry_run=True) is None
    assert model_in(server.repository, "model").pinned == 1
    with pytest.raises(Exception, match="has no version 2 ready"):
        asking(server, tower_folder("bert"), "model", version=2)


def test_a_tower_of_another_space_is_refused_by_the_repository_and_by_deploy(
    server: TritonServer, tmp_path: Path
) -> None:
    stranger = tiny.saved(tmp_path / "stranger", "bert", dim=8, seed=1)
    export_tower(stranger, tmp_path / "export")
    with pytest.raises(SpaceMismatch, match=r"cannot take the place of tower 'tiny-bert'.*under another --name"):
        added(server.repository, tmp_path / "export", "model")
    elsewhere = tmp_path / "elsewhere"
    added(elsewhere, tmp_path / "export", "model")
    model = model_in(elsewhere, "model")
    with pytest.raises(SpaceMismatch, match="cannot take the place of tower 'tiny-bert'"):
        deploy(elsewhere, model, model.versions[1], [Access(url=server.url)], say=print)


def test_one_of_two_servers_that_is_away_keeps_the_other_as_it_was(server: TritonServer) -> None:
    added(server.repository, export_folder("bert", "int8"), "model")
    second = TritonServer(server.repository)
    second.start()
    deployed(server, 2, second)
    for each in (server, second):
        client = asking(each, tower_folder("bert"), "model")
        assert client.spec.precision == "int8"
        client.close()
    second.pause()
    try:
        with pytest.raises(Retry, match="did not answer"):
            deployed(server, 1, second)
    finally:
        second.stop()
    client = asking(server, tower_folder("bert"), "model")
    assert client.spec.precision == "int8"
    client.close()


def test_the_commands_from_towers_to_a_served_version(tmp_path: Path) -> None:
    repository = tmp_path / "models"
    run = CliRunner()
    arguments = ["export", str(export_folder("bert", "fp32")), "--out", str(repository), "--format", "triton"]
    first = run.invoke(build("export"), [*arguments[:], "--backend", "python"])
    assert first.exit_code == 0, first.output
    assert "tiny-bert 1 (pinned)" in first.output
    server = TritonServer(repository)
    server.start()
    try:
        second = run.invoke(build("export"), [*arguments, "--backend", "python"])
        assert "tiny-bert 2 (pinned is 1; bartizan deploy puts the new one into use)" in second.output
        done = run.invoke(build("deploy"), ["deploy", str(repository), "--server", server.url])
        assert done.exit_code == 0, done.output
        assert "tiny-bert 2: in use on 1 server" in done.output
        assert "* tiny-bert  2  tw-" in run.invoke(build("repo"), ["repo", "list", str(repository)]).output
        gone = run.invoke(build("repo"), ["repo", "prune", str(repository), "--keep", "0"])
        assert "removed tiny-bert 1" in gone.output
    finally:
        server.stop()
    assert not (repository / "tiny-bert" / "1").exists()
