"""`bartizan.toml`: what is read, what the environment overrides, what is refused."""

import contextlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bartizan_connector.config import Config
from bartizan_connector.errors import WrongUse

MINIMAL = '[space]\ncollection = "docs"\ndocument_tower = "towers/document"\n'


def write(folder: Path, text: str) -> Path:
    path = folder / "bartizan.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_minimal_file_gets_laptop_defaults(tmp_path: Path) -> None:
    config = Config.load(write(tmp_path, MINIMAL), {})
    assert config.encoder.engine == "onnx"
    assert config.backend.uri == str(tmp_path / "bartizan.db")
    assert config.space.query_tower is None


def test_relative_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    text = MINIMAL + '[backend]\nuri = "x.db"\nlexical = "words"\n[source]\npath = "c.jsonl"\n'
    config = Config.load(write(tmp_path, text), {})
    assert config.space.document_tower == tmp_path / "towers/document"
    assert config.backend.uri == str(tmp_path / "x.db")
    assert config.backend.lexical == tmp_path / "words"
    assert config.source is not None
    assert config.source.path == tmp_path / "c.jsonl"


def test_a_server_address_is_no_path(tmp_path: Path) -> None:
    config = Config.load(write(tmp_path, MINIMAL + '[backend]\nuri = "http://milvus:19530"\n'), {})
    assert config.backend.uri == "http://milvus:19530"


def test_the_environment_overrides_any_key(tmp_path: Path) -> None:
    environment = {
        "BARTIZAN__BACKEND__URI": "http://other:19530",
        "BARTIZAN__BACKEND__TIMEOUT": "2.5",
        "BARTIZAN__SOURCE__PATH": "elsewhere.jsonl",
        "BARTIZAN__SPACE__FIELDS": json.dumps([{"name": "year", "type": "int"}]),
        "UNRELATED": "x",
    }
    config = Config.load(write(tmp_path, MINIMAL + '[backend]\nuri = "x.db"\n'), environment)
    assert config.backend.uri == "http://other:19530"
    assert config.backend.timeout == 2.5
    assert config.source is not None
    assert config.space.fields[0].name == "year"


@pytest.mark.parametrize(
    ("text", "environment", "message"),
    [
        (MINIMAL + "[backend]\nurl = 'x'\n", {}, r"unknown key backend\.url; known here: .*uri"),
        (MINIMAL + "[frobnicate]\nx = 1\n", {}, r"unknown key frobnicate; known here: .*space"),
        (MINIMAL, {"BARTIZAN__BACKEND__URL": "x"}, r"unknown key backend\.url"),
        (MINIMAL, {"BARTIZAN__NOWHERE": "x"}, "unknown key nowhere"),
        (
            MINIMAL + "[source]\npath = 'x'\nbatchsize = 3\n",
            {},
            r"unknown key source\.batchsize; known here: batch_size",
        ),
        (MINIMAL, {"BARTIZAN__SPACE__COLLECTION__X": "y"}, "'collection' is a value, not a table"),
        (MINIMAL, {"BARTIZAN__SPACE__FIELDS": "[{"}, "expected JSON"),
        ("[space]\n", {}, r"space\.collection: Field required"),
        (MINIMAL.replace('"docs"', '"no spaces!"'), {}, r"space\.collection"),
        (MINIMAL + "[backend]\ntimeout = 0\n", {}, r"backend\.timeout"),
        (MINIMAL + "[backend]\nlexical_weight = 0\n", {}, r"backend\.lexical_weight: .*greater than 0"),
        (MINIMAL + "[backend]\nlexical_weight = inf\n", {}, r"backend\.lexical_weight: .*finite"),
        (MINIMAL, {"BARTIZAN__BACKEND__LEXICAL_WEIGHT": "nan"}, r"backend\.lexical_weight"),
        (MINIMAL + "[backend]\ntoken = 'a'\ntoken_file = 'b'\n", {}, "token or token_file, not both"),
        ("[space\n", {}, "not valid TOML"),
    ],
)
def test_a_wrong_file_is_refused_with_the_key(
    tmp_path: Path, text: str, environment: dict[str, str], message: str
) -> None:
    with pytest.raises(WrongUse, match=message) as refusal:
        Config.load(write(tmp_path, text), environment)
    assert refusal.value.exit_code == 2


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(WrongUse, match=r"nowhere\.toml"):
        Config.load(tmp_path / "nowhere.toml", {})


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bartizan.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(WrongUse, match="not valid TOML"):
        Config.load(path, {})


def test_a_secret_is_read_but_never_shown(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("root:Milvus\n")
    config = Config.load(write(tmp_path, MINIMAL + "[backend]\ntoken_file = 'token'\n"), {})
    assert config.backend.secret() == "root:Milvus"
    config = Config.load(write(tmp_path, MINIMAL), {"BARTIZAN__BACKEND__TOKEN": "root:Milvus"})
    assert config.backend.secret() == "root:Milvus"
    assert "root:Milvus" not in f"{config!r}{config.model_dump_json()}"


def test_a_refusal_does_not_repeat_a_secret(tmp_path: Path) -> None:
    with pytest.raises(WrongUse) as refusal:
        Config.load(
            write(tmp_path, MINIMAL + "[backend]\ntoken_file = 'b'\n"), {"BARTIZAN__BACKEND__TOKEN": "root:Milvus"}
        )
    assert "root:Milvus" not in str(refusal.value)


def test_a_missing_token_file_is_named(tmp_path: Path) -> None:
    config = Config.load(write(tmp_path, MINIMAL + "[backend]\ntoken_file = 'nowhere'\n"), {})
    with pytest.raises(WrongUse, match="nowhere"):
        config.backend.secret()


@given(st.dictionaries(st.from_regex(r"BARTIZAN__[A-Z_]{1,20}", fullmatch=True), st.text(max_size=10), max_size=4))
def test_no_environment_can_do_more_than_be_refused(
    tmp_path_factory: pytest.TempPathFactory, names: dict[str, str]
) -> None:
    path = write(tmp_path_factory.mktemp("config"), MINIMAL)
    with contextlib.suppress(WrongUse):
        Config.load(path, names)
