"""`bartizan.toml`: what is read, what the environment overrides, what is refused."""

import contextlib
import json
import logging
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bartizan_connector.__main__ import main
from bartizan_connector.base.errors import WrongUse
from bartizan_connector.config import Config
from bartizan_connector.encode.settings import OnnxSettings

DENSE = '[spaces.dense]\ndocument_tower = "towers/document"\n'
MINIMAL = '[collection]\nname = "docs"\n' + DENSE
FIELDS = DENSE + '[collection]\nname = "docs"\n'


def write(folder: Path, text: str) -> Path:
    path = folder / "bartizan.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_minimal_file_gets_laptop_defaults(tmp_path: Path) -> None:
    config = Config.load(write(tmp_path, MINIMAL), {})
    assert config.encoder("query").engine == config.encoder("document").engine == "onnx"
    assert config.backend.uri == str(tmp_path / "index.bartizan")
    assert config.spaces["dense"].query_tower is None


def test_relative_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    text = MINIMAL + '[backend]\nuri = "x.db"\nlexical = "words"\n[source]\npath = "c.jsonl"\n'
    config = Config.load(write(tmp_path, text), {})
    assert config.spaces["dense"].document_tower == tmp_path / "towers/document"
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
        "BARTIZAN__SEARCH__WEIGHTS__LEXICAL": "0.5",
        "BARTIZAN__SOURCE__PATH": "elsewhere.jsonl",
        "BARTIZAN__COLLECTION__FIELDS": json.dumps([{"name": "year", "type": "int"}]),
        "UNRELATED": "x",
    }
    config = Config.load(write(tmp_path, MINIMAL + '[backend]\nuri = "x.db"\n'), environment)
    assert config.backend.uri == "http://other:19530"
    assert config.backend.timeout == 2.5
    assert config.search.weights == {"lexical": 0.5}
    assert config.source is not None
    assert config.collection.fields[0].name == "year"


@pytest.mark.parametrize(
    ("text", "environment", "message"),
    [
        (MINIMAL + "[backend]\nurl = 'x'\n", {}, r"unknown key backend\.url; known here: .*uri"),
        (MINIMAL + "[frobnicate]\nx = 1\n", {}, r"unknown key frobnicate; known here: .*spaces"),
        (MINIMAL, {"BARTIZAN__BACKEND__URL": "x"}, r"unknown key backend\.url"),
        (MINIMAL, {"BARTIZAN__NOWHERE": "x"}, "unknown key nowhere"),
        (
            MINIMAL + "[source]\npath = 'x'\nbatchsize = 3\n",
            {},
            r"unknown key source\.batchsize; known here: batch_size",
        ),
        (MINIMAL, {"BARTIZAN__COLLECTION__NAME__X": "y"}, "'name' is a value, not a table"),
        (MINIMAL, {"BARTIZAN__COLLECTION__FIELDS": "[{"}, "expected JSON"),
        ("[collection]\n" + DENSE, {}, r"collection\.name: is missing"),
        ("[collection]\nname = 'docs'\n[spaces]\n", {}, r"spaces: must have at least 1 item"),
        (MINIMAL.replace('"docs"', '"no spaces!"'), {}, r"collection\.name"),
        (MINIMAL + "[backend]\ntimeout = 0\n", {}, r"backend\.timeout"),
        (MINIMAL + "[search]\nweights = { lexical = 0 }\n", {}, r"search\.weights\.lexical: .*greater than 0"),
        (MINIMAL + "[search]\nfusion = 'mean'\n", {}, r"search\.fusion: .*'rrf' or 'scores'"),
        (MINIMAL + "[search]\nweights = { dense = inf }\n", {}, r"search\.weights\.dense: .*finite"),
        (MINIMAL, {"BARTIZAN__SEARCH__WEIGHTS__LEXICAL": "nan"}, r"search\.weights\.lexical"),
        (MINIMAL + "[backend]\ntoken = 'a'\ntoken_file = 'b'\n", {}, "token or token_file, not both"),
        ("[collection\n", {}, "not valid TOML"),
        (
            FIELDS + "fields = [{ name = 'id', type = 'int' }]\n",
            {},
            r"fields: Bartizan keeps the name 'id' .*another one",
        ),
        (
            FIELDS + "fields = [{ name = 'dense', type = 'int' }]\n",
            {},
            r"spaces\.dense: a field of the collection has that name; rename one of them",
        ),
        (
            FIELDS + "fields = [{ name = 'title', type = 'string' }]\n",
            {},
            "'title' is stored without .*; leave it out",
        ),
        (FIELDS + "fields = [{ name = 'text', type = 'string' }]\n", {}, "'text' is stored without being declared"),
        (
            FIELDS + "fields = [{ name = 'year', type = 'int' }, { name = 'year', type = 'int' }]\n",
            {},
            r"collection\.fields: 'year' is declared twice; keep one of them",
        ),
        (
            FIELDS + "fields = [{ name = 'lang', type = 'string', default = 5 }]\n",
            {},
            r"fields\.1: the default of 'lang' must be of type string, but 5 came; give one of that type",
        ),
        (
            FIELDS + "fields = [{ name = 'n', type = 'int', default = true }]\n",
            {},
            "must be of type int, but True came",
        ),
        (FIELDS + "fields = [{ name = 'x', type = 'float', default = nan }]\n", {}, "of type float, but nan came"),
        (MINIMAL + "[backend]\ntimeout = inf\n", {}, r"backend\.timeout: must be a finite number, but inf came"),
        (
            MINIMAL + "[encoders.query]\nbatch_tokens = 0\n",
            {},
            r"encoders\.query\.batch_tokens: .*equal to 1, but 0 came",
        ),
        (MINIMAL + "[encoders.query]\nthreads = 'two'\n", {}, r"threads: must be a whole number, but 'two' came"),
        (MINIMAL + "[backend]\nlexical = 5\n", {}, r"backend\.lexical: must be a folder, or true .*, but 5 came"),
        (MINIMAL + "[backend]\nuri = ['a']\n", {}, r"backend\.uri: must be a text, but a list came"),
        (MINIMAL + "[backend]\nuri = ''\n", {}, r"backend\.uri: must not be empty"),
        (MINIMAL + "[source]\npath = ''\n", {}, r"source\.path: must be a path, but '' came"),
        (MINIMAL + "[backend]\nuri = 'memory:'\nlexical = 'w'\n", {}, "lexical: of 'memory:' nothing stays"),
        (MINIMAL.replace('"docs"', '"no spaces!"'), {}, "must be a name of at most 60 letters.* but 'no spaces!' came"),
        ("collection = 3\n" + DENSE, {}, "collection: must be a table, but 3 came"),
        (
            MINIMAL + "[search]\nweights = { lexical = true }\n",
            {},
            r"weights\.lexical: must be a number, but True came",
        ),
        (MINIMAL + "[search]\ntimeout = '30'\n", {}, r"search\.timeout: must be a number, but '30' came"),
        (MINIMAL + "[encoders.query]\nthreads = true\n", {}, r"query\.threads: must be a whole number, but True came"),
        (MINIMAL + "[source]\npath = 'x'\nbatch_size = '8'\n", {}, r"batch_size: must be a whole number, but '8' came"),
        (MINIMAL, {"BARTIZAN__COLLECTION__FIELDS": '[{"name": "n"}]'}, r"collection\.fields\.1\.type: is missing"),
        (
            MINIMAL + "[search]\nweights = { spars = 1 }\n",
            {},
            r"weights\.spars: there is no such leg; .* dense, lexical",
        ),
        (MINIMAL + "[spaces.lexical]\ndocument_tower = 'x'\n", {}, r"spaces\.lexical: that name is the word search's"),
        (MINIMAL + "[spaces.text]\ndocument_tower = 'x'\n", {}, r"spaces\.text: Bartizan keeps that name for itself"),
        (MINIMAL + "[spaces.id]\ndocument_tower = 'x'\n", {}, r"spaces\.id: Bartizan keeps that name for itself"),
        (MINIMAL + "query_towr = 'x'\n", {}, r"unknown key spaces\.dense\.query_towr; known here: document_encoder, "),
        (MINIMAL + "query_encoder = 'gpu'\n", {}, r"query_encoder: there is no table \[encoders\.gpu\]; there are doc"),
        (
            MINIMAL + "[encoders.query]\nengine = 'abacus'\n",
            {},
            r"encoders\.query: unknown engine 'abacus'; known: onnx",
        ),
        (MINIMAL + "[encoders.query]\nthread = 1\n", {}, r"unknown key encoders\.query\.thread; known here: batch_tok"),
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
        "BARTIZAN__COLLECTION__FIELDS": '[{"name": "id", "type": "int"}]',
    }
    with pytest.raises(WrongUse) as refusal:
        Config.load(write(tmp_path, MINIMAL + "[encoders.query]\nthreads = -1\n"), environment)
    told = set(str(refusal.value).split("; "))
    assert told >= {
        "BARTIZAN__COLLECTION__FIELDS: collection.fields: Bartizan keeps the name 'id' for itself",
        "BARTIZAN__BACKEND__TIMEOUT: backend.timeout: must be a number, but 'soon' came",
        "BARTIZAN__BACKEND__URL: unknown key backend.url",
        f"{tmp_path}/bartizan.toml: encoders.query.threads: must be greater than or equal to 0, but -1 came",
    }


@pytest.mark.parametrize("command", [("search", "x", "--config"), ("ingest",), ("doctor", "--config")])
@pytest.mark.parametrize("name", ["id", "title", "text", "year', type = 'int' }, { name = 'year"])
def test_a_field_name_that_is_taken_is_wrong_use_of_every_command(
    tmp_path: Path, name: str, command: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, FIELDS + f"fields = [{{ name = '{name}', type = 'int' }}]\n")
    with pytest.raises(SystemExit) as exited:
        main((*command, str(path)))
    assert exited.value.code == 2
    printed = capsys.readouterr()
    assert "collection.fields: " in printed.err + printed.out


def test_no_refusal_speaks_as_programs_do(tmp_path: Path) -> None:
    """Whatever is wrong with whichever key: no phrase of the library that reads the file."""
    wrong = ["true", "1.5", "'x'", "[]", "{}", "[{}]", "{ a = 1 }", "nan", "-1"]
    keys = ["collection.name", "collection.fields", "spaces", "spaces.dense", "spaces.dense.query_tower", "encoders"]
    keys += ["encoders.query", "encoders.query.engine", "backend", "backend.uri", "backend.timeout", "backend.token"]
    keys += ["backend.lexical", "search.fusion", "search.weights", "search.timeout", "source", "source.kind"]
    for key in keys:
        for value in wrong:
            path = write(tmp_path, f"{key} = {value}\n")
            with pytest.raises(WrongUse) as refusal:
                Config.load(path, {})
            told = str(refusal.value)
            assert not re.search(
                r"[Ii]nput|validation|Field required|[Tt]ag |tuple|dict|instance|parse|\[key\]", told
            ), told


def test_numbers_in_the_environment_are_texts_and_read_as_numbers(tmp_path: Path) -> None:
    names = {"BARTIZAN__SEARCH__TIMEOUT": "2.5", "BARTIZAN__ENCODERS__QUERY__THREADS": "3"}
    config = Config.load(write(tmp_path, MINIMAL), names)
    assert config.search.timeout == 2.5
    assert config.encoder("query") == OnnxSettings(threads=3)


def test_a_variable_with_single_underscores_is_remarked(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    environment = {"BARTIZAN_BACKEND_URI": "x", "BARTIZAN_SEARCH__FUSION": "rrf", "BARTIZAN_DATA": "y"}
    with caplog.at_level(logging.WARNING):
        config = Config.load(write(tmp_path, MINIMAL), environment)
    assert config.backend.uri == str(tmp_path / "index.bartizan")
    assert [record.getMessage() for record in caplog.records] == [
        "BARTIZAN_BACKEND_URI sets nothing: keys are parted by two underscores; did you mean BARTIZAN__BACKEND__URI?",
        "BARTIZAN_SEARCH__FUSION sets nothing: keys are parted by two underscores; did you mean "
        "BARTIZAN__SEARCH__FUSION?",
    ]


def test_several_spaces_are_several_legs(tmp_path: Path) -> None:
    text = MINIMAL + "query_tower = 'small'\n[spaces.terms]\ndocument_tower = 'terms'\nquery_encoder = 'near'\n"
    config = Config.load(write(tmp_path, text + "[encoders.near]\nthreads = 2\n"), {})
    assert list(config.spaces) == ["dense", "terms"]
    dense, terms = config.spaces.values()
    assert [dense.tower(role) for role in ("document", "query")] == [tmp_path / "towers/document", tmp_path / "small"]
    assert [terms.tower(role) for role in ("document", "query")] == [tmp_path / "terms", tmp_path / "terms"]
    assert config.encoder(terms.encoder("query")) == OnnxSettings(threads=2)
    assert config.encoder(terms.encoder("document")) == config.encoder(dense.encoder("query")) == OnnxSettings()


def test_no_secret_is_shown_by_what_came(tmp_path: Path) -> None:
    for line in (
        "token = 5", "token = ['S3cret']", "token = { a = 'S3cret' }", "index = 'http://root:S3cret@milvus'"
    ):  # fmt: skip
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


@pytest.mark.packaging
@given(st.dictionaries(st.from_regex(r"BARTIZAN__[A-Z_]{1,20}", fullmatch=True), st.text(max_size=10), max_size=4))
def test_no_environment_can_do_more_than_be_refused(
    tmp_path_factory: pytest.TempPathFactory, names: dict[str, str]
) -> None:
    path = write(tmp_path_factory.mktemp("config"), MINIMAL)
    with contextlib.suppress(WrongUse):
        Config.load(path, names)
