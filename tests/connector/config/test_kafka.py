"""`[source] kind = "kafka"`: the keys, what belongs together, and what is never shown."""

from pathlib import Path
from typing import Any

import pytest

from bartizan_connector.base.errors import WrongUse
from bartizan_connector.config import Config
from bartizan_connector.config.kafka import KafkaSettings

TOPIC = '[source]\nkind = "kafka"\nbootstrap = "one:9092, two:9092"\ntopic = "docs"\ngroup = "search"\n'
MINIMAL = '[collection]\nname = "docs"\n[spaces.dense]\ndocument_tower = "tower"\n'


def load(folder: Path, text: str, **environment: str) -> Any:
    (folder / "bartizan.toml").write_text(MINIMAL + text)
    return Config.load(folder / "bartizan.toml", environment).source


def test_a_topic_with_what_is_usual(tmp_path: Path) -> None:
    source = load(tmp_path, TOPIC)
    assert isinstance(source, KafkaSettings)
    assert (source.topic, source.group, source.letters, source.decoder) == ("docs", "search", "docs.DLQ", "json")
    assert source.place == "topic docs at one:9092, two:9092"


def test_files_are_beside_the_configuration_and_a_password_is_read_and_never_shown(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("hush\n")
    more = 'tls = true\nca = "ca.pem"\nsasl = "SCRAM-SHA-256"\nuser = "alice"\npassword_file = "secret"\n'
    source = load(tmp_path, TOPIC + more)
    assert (source.ca, source.secret()) == (tmp_path / "ca.pem", "hush")
    more = 'sasl = "PLAIN"\nuser = "alice"\n'
    source = load(tmp_path, TOPIC + more, BARTIZAN__SOURCE__PASSWORD="whisper")
    assert source.secret() == "whisper"
    assert "whisper" not in repr(source)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('[source]\nkind = "pulsar"\n', r"source: unknown kind 'pulsar'; known: jsonl, kafka"),
        ('[source]\nkind = "kafka"\ntopic = "t"\ngroup = "g"\n', r"source.bootstrap: is missing"),
        (TOPIC + "path = 'x'\n", r"unknown key source.path; known here: batch_size, bootstrap"),
        (TOPIC.replace('"docs"', '"a topic"'), "source.topic"),
        (TOPIC + 'ca = "x"\n', "are for TLS: set tls = true"),
        (TOPIC + 'tls = true\nkey = "x"\n', "certificate and key belong together"),
        (TOPIC + 'sasl = "PLAIN"\nuser = "a"\n', "sasl, user and password"),
        (TOPIC + 'sasl = "PLAIN"\nuser = "a"\npassword = "b"\npassword_file = "c"\n', "not both"),
        (TOPIC + 'dead_letters = "docs"\n', "dead_letters is the topic itself"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(WrongUse, match=why):
        load(tmp_path, text)


def test_a_wrong_password_is_not_told(tmp_path: Path) -> None:
    with pytest.raises(WrongUse) as refused:
        load(tmp_path, TOPIC + 'sasl = "PLAIN"\nuser = "a"\npassword = ["whisper"]\n')
    assert "whisper" not in str(refused.value)
