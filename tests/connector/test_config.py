"""`bartizan.toml`: what is read, what the environment overrides, what is refused."""

import contextlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bartizan_connector.__main__ import main
from bartizan_connector.base.errors import WrongUse
from bartizan_connector.config import Config

MINIMAL = '[space]\ncollection = "docs"\ndocument_tower = "towers/document"\n'


def write(folder: Path, text: str) -> Path:
    path = folder / "bartizan.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_minimal_file_gets_laptop_defaults(tmp_path: Path) -> None:
    config = Config.load(write(tmp_path, MINIMAL), {})
    assert config.encoder.engine == "onnx"
    assert config.backend.uri == str(tmp_path / "index.bartizan")
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
        (MINIMAL + "[backend]\nfusion = 'mean'\n", {}, r"backend\.fusion: .*'rrf' or 'scores'"),
        (MINIMAL + "[backend]\nlexical_weight = inf\n", {}, r"backend\.lexical_weight: .*finite"),
        (MINIMAL, {"BARTIZAN__BACKEND__LEXICAL_WEIGHT": "nan"}, r"backend\.lexical_weight"),
        (MINIMAL + "[backend]\ntoken = 'a'\ntoken_file = 'b'\n", {}, "token or token_file, not both"),
        ("[space\n", {}, "not valid TOML"),
        (
            MINIMAL + "fields = [{ name = 'id', type = 'int' }]\n",
            {},
            r"fields: Bartizan keeps the name 'id' .*another one",
        ),
        (MINIMAL + "fields = [{ name = 'dense', type = 'int' }]\n", {}, "Bartizan keeps the name 'dense' for itself"),
        (
            MINIMAL + "fields = [{ name = 'title', type = 'string' }]\n",
            {},
            "'title' is stored without .*; leave it out",
        ),
        (MINIMAL + "fields = [{ name = 'text', type = 'string' }]\n", {}, "'text' is stored without being declared"),
        (
            MINIMAL + "fields = [{ name = 'year', type = 'int' }, { name = 'year', type = 'int' }]\n",
            {},
            r"space\.fields: 'year' is declared twice; keep one of them",
        ),
        (
            MINIMAL + "fields = [{ name = 'lang', type = 'string', default = 5 }]\n",
            {},
            r"fields\.0: the default of 'lang' must be of type string, but 5 came; give one of that type",
        ),
        (
            MINIMAL + "fields = [{ name = 'n', type = 'int', default = true }]\n",
            {},
            "must be of type int, but True came",
        ),
        (MINIMAL + "fields = [{ name = 'x', type = 'float', default = nan }]\n", {}, "of type float, but nan came"),
        (MINIMAL + "[backend]\ntimeout = inf\n", {}, r"backend\.timeout: must be a finite number, but inf came"),
        (MINIMAL + "[encoder]\nbatch_tokens = 0\n", {}, r"encoder\.batch_tokens: .*equal to 1, but 0 came"),
        (MINIMAL + "[encoder]\nthreads = 'two'\n", {}, r"threads: must be a whole number, but 'two' came"),
        (MINIMAL + "[backend]\nlexical = 5\n", {}, r"backend\.lexical: must be a path, but 5 came"),
        (MINIMAL + "[backend]\nuri = ['a']\n", {}, r"backend\.uri: must be a text, but a list came"),
        (MINIMAL.replace('"docs"', '"no spaces!"'), {}, "must be a name of at most 60 letters.* but 'no spaces!' came"),
        ("space = 3\n", {}, "space: must be a table, but 3 came"),
    ],
)
def test_a_wrong_file_is_refused_with_the_key(
    tmp_path: Path, text: str, environment: dict[str, str], message: str
) -> None:
    with pytest.raises(WrongUse, match=message) as refusal:
        Config.load(write(tmp_path, text), environment)
    assert refusal.value.exit_code == 2


def test_a_fault_of_the_environment_is_not_blamed_on_the_file(tmp_path: Path) -> None:
    environment = {
        "BARTIZAN__BACKEND__URL": "x",
        "BARTIZAN__BACKEND__TIMEOUT": "soon",
        "BARTIZAN__SPACE__FIELDS": '[{"name": "id", "type": "int"}]',
    }
    with pytest.raises(WrongUse) as refusal:
        Config.load(write(tmp_path, MINIMAL + "[encoder]\nthreads = -1\n"), environment)
    told = set(str(refusal.value).split("; "))
    assert told >= {
        "BARTIZAN__SPACE__FIELDS: space.fields: Bartizan keeps the name 'id' for itself",
        "BARTIZAN__BACKEND__TIMEOUT: backend.timeout: must be a number, but 'soon' came",
        "BARTIZAN__BACKEND__URL: unknown key backend.url",
        f"{tmp_path}/bartizan.toml: encoder.threads: must be greater than or equal to 0, but -1 came",
    }


@pytest.mark.parametrize("command", [("search", "x", "--config"), ("ingest",), ("doctor", "--config")])
@pytest.mark.parametrize("name", ["id", "title", "text", "year', type = 'int' }, { name = 'year"])
def test_a_field_name_that_is_taken_is_wrong_use_of_every_command(
    tmp_path: Path, name: str, command: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, MINIMAL + f"fields = [{{ name = '{name}', type = 'int' }}]\n")
    with pytest.raises(SystemExit) as exited:
        main((*command, str(path)))
    assert exited.value.code == 2
    printed = capsys.readouterr()
    assert "space.fields: " in printed.err + printed.out


def test_no_secret_is_shown_by_what_came(tmp_path: Path) -> None:
    for line in ("token = 5", "token = ['S3cret']", "token = { a = 'S3cret' }", "kind = 'http://root:S3cret@milvus'"):
        with pytest.raises(WrongUse) as refusal:
            Config.load(write(tmp_path, MINIMAL + f"[backend]\n{line}\n"), {})
        assert "S3cret" not in str(refusal.value)
        assert "5" not in str(refusal.value).split("backend.")[1]


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
