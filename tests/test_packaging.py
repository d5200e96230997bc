"""What users install: the wheel holds what git tracks, stands alone, and its extras keep enemies apart."""

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from bartizan_connector.space.spec import TowerSpec
from tests.test_layout import PACKAGES, ROOT

pytestmark = [pytest.mark.packaging, pytest.mark.timeout(1200)]
EXTRAS = ("local", "milvus", "stream", "serve", "triton", "train", "data", "gpu", "all")


def uv() -> str:
    found = shutil.which("uv") or str(ROOT / ".tools/bin/uv")
    assert Path(found).exists(), "uv is missing: run `make env`"
    return found


def run(*command: str | Path, cwd: Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run([*map(str, command)], cwd=cwd, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == code, f"{command}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(uv(), "build", "--wheel", "--out-dir", folder, ROOT, cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def alone(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty environment with the wheel and its light core, nothing else."""
    folder = tmp_path_factory.mktemp("alone")
    run(uv(), "venv", "--python", sys.executable, folder / "env", cwd=folder)
    run(uv(), "pip", "install", "--python", folder / "env/bin/python", wheel, cwd=folder)
    return folder


@pytest.fixture(scope="module")
def complete(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty environment with the wheel and all its extras, at the locked versions."""
    folder = tmp_path_factory.mktemp("complete")
    run(uv(), "venv", "--python", sys.executable, folder / "env", cwd=folder)
    pinned = folder / "constraints.txt"
    pinned.write_text("\n".join(line.rstrip(" \\") for line in locked() if not line.startswith(" ")))
    install = (uv(), "pip", "install", "--python", folder / "env/bin/python", "--constraint", pinned)
    run(*install, "--compile-bytecode", f"bartizan-search[all] @ {wheel.as_uri()}", cwd=folder)
    return folder


def locked() -> list[str]:
    return (ROOT / "requirements.lock").read_text().splitlines()


def test_the_wheel_holds_every_tracked_file_and_nothing_else(wheel: Path) -> None:
    shipped = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    tracked = subprocess.run(
        ["git", "ls-files", *PACKAGES], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.split("\n")
    assert shipped == {name.split("/", 1)[1] for name in tracked if name}


def test_the_wheel_alone_imports_and_shows_every_command(alone: Path) -> None:
    listed = run(alone / "env/bin/bartizan", "--help", cwd=alone).stdout
    for command in ("demo", "tower", "train", "export", "ingest", "search", "eval", "doctor"):
        assert re.search(rf"\b{command}\b", listed), f"{command} is not listed"
        assert "Usage" in run(alone / "env/bin/bartizan", command, "--help", cwd=alone).stdout
    probe = "import sys, bartizan_connector; assert not {'torch', 'numpy', 'pydantic'} & set(sys.modules)"
    run(alone / "env/bin/python", "-c", probe, cwd=alone)


def test_a_missing_extra_names_the_line_that_installs_it(alone: Path) -> None:
    failed = run(alone / "env/bin/bartizan", "tower", "import", "minilm", "--out", "t", cwd=alone, code=2)
    assert "pip install 'bartizan-search[train]'" in failed.stderr
    findings = json.loads(run(alone / "env/bin/bartizan", "doctor", "--json", cwd=alone).stdout)
    assert any("bartizan-search[local]" in finding["way_out"] for finding in findings)


def test_the_demo_and_the_readme_code_run_from_the_wheel(complete: Path) -> None:
    run(complete / "env/bin/bartizan", "demo", "--quick", "--from-scratch", cwd=complete)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    snippets = re.findall(r"```python\n(.*?)```", readme, flags=re.DOTALL)
    assert snippets
    towers = (path.parent for path in sorted((complete / "bartizan-demo").rglob("tower.json")))
    both = next(tower for tower in towers if set(TowerSpec.read(tower).roles) == {"document", "query"})
    (complete / "minilm").symlink_to(both)  # what the README imports first
    for snippet in snippets:
        assert run(complete / "env/bin/python", "-c", snippet, cwd=complete).stdout.strip()


@pytest.mark.parametrize("extra", EXTRAS)
def test_no_extra_brings_both_faiss_builds(extra: str, tmp_path: Path) -> None:
    command = (uv(), "pip", "compile", ROOT / "pyproject.toml", "--extra", extra, "--no-header", "--no-annotate")
    resolved = run(*command, "--python", sys.executable, cwd=tmp_path).stdout
    builds = set(re.findall(r"^(faiss-\w+)==", resolved, flags=re.MULTILINE))
    assert builds == {"local": {"faiss-cpu"}, "milvus": {"faiss-cpu"}, "all": {"faiss-cpu"}, "gpu": {"faiss-gpu"}}.get(
        extra, set()
    )


def test_the_lock_is_hashed_names_no_index_and_holds_one_faiss() -> None:
    lines = locked()
    assert not [line for line in lines if "://" in line]
    pinned = [line for line in lines if line and not line.startswith((" ", "#"))]
    assert all("==" in line for line in pinned)
    hashes = sum("--hash=sha256:" in line for line in lines)
    assert hashes >= len(pinned)
    assert [line.split("==")[0] for line in pinned if line.startswith("faiss")] == ["faiss-cpu"]
