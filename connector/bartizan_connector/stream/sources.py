"""The source that a configuration names, opened."""

from bartizan_connector.base.errors import WrongUse
from bartizan_connector.config import Config
from bartizan_connector.config.kafka import KafkaSettings
from bartizan_connector.config.settings import JsonlSettings
from bartizan_connector.stream.jsonl import JsonlSource, dead_letters_of
from bartizan_connector.stream.letter_file import FiledLetters
from bartizan_connector.stream.letters import Letterbox
from bartizan_connector.stream.source import Source
from bartizan_connector.stream.standard_input import LETTERS, StandardInput


def open_source(config: Config, *, follow: bool | None = None) -> Source:
    """What `[source]` says; nothing is read or written yet. A configuration without one is refused. `follow`: whether
    a topic is read on and on; by default it is, and files never are."""
    settings = config.source
    if settings is None:
        raise WrongUse(
            'the configuration has no [source]; say where the documents are: [source] path = …, or kind = "kafka"'
        )
    match settings:
        case JsonlSettings():
            if follow:
                raise WrongUse("files have an end, and are not followed: leave --follow out, or read a topic")
            return JsonlSource(settings.path, dead_letters=settings.dead_letters, batch_size=settings.batch_size)
        case KafkaSettings():
            from bartizan_connector.stream.kafka.source import KafkaSource

            return KafkaSource.open(settings, follow=follow is not False)


def open_standard_input(config: Config) -> Source:
    """Standard input, with what `[source]` says of dead letters and batches, if anything."""
    settings = config.source
    if not isinstance(settings, JsonlSettings):
        return StandardInput()
    return StandardInput(dead_letters=settings.dead_letters, batch_size=settings.batch_size)


def open_letters(config: Config) -> Letterbox:
    """The dead letters of what `[source]` says; without it, those of standard input."""
    settings = config.source
    match settings:
        case None:
            return FiledLetters(LETTERS)
        case JsonlSettings():
            return FiledLetters(settings.dead_letters or dead_letters_of(settings.path))
        case KafkaSettings():
            from bartizan_connector.stream.kafka.letterbox import TopicLetters

            return TopicLetters(settings)
