"""Letters given again: a source of dead letters."""

from collections.abc import Callable, Generator, Iterator, Sequence
from itertools import islice

from bartizan_connector.base.errors import Retry
from bartizan_connector.stream.letters import Chosen, Letter, Letterbox, Outcome
from bartizan_connector.stream.source import Batch, Message

SIZE = 256
"""Letters of a batch."""


class Again:
    """A Source of the letters that are chosen. The box is read with the first `poll`: by then nobody else writes."""

    def __init__(self, box: Letterbox, chosen: Chosen, settle: Callable[[Sequence[Outcome]], None]) -> None:
        self._box = box
        self._chosen = chosen
        self._settle = settle
        """Told with each commit what became of the letters."""
        self._given: dict[str, Letter] = {}
        self._seen: set[str] = set()
        self._refused: dict[str, str] = {}
        self._letters: Generator[Letter, None, None] | None = None
        self._batches: Iterator[Batch] | None = None
        self.ended = False

    @property
    def dead_letters(self) -> str:
        return self._box.place

    def backlog(self) -> int | None:
        return None

    def poll(self, timeout: float) -> Batch | None:
        """The next letters, oldest first."""
        if self._batches is None:
            self._letters = self._box.letters()
            fresh = (letter for letter in self._letters if letter.place not in self._seen)
            self._batches = self.batches(filter(self._chosen, fresh))
        try:
            batch = next(self._batches, None)
        except Retry:  # the next call reads the box anew, and goes on after what was given
            self._batches = None
            raise
        self.ended = batch is None
        return batch

    def batches(self, letters: Iterator[Letter]) -> Iterator[Batch]:
        """The letters in batches."""
        while some := list(islice(letters, SIZE)):
            yield self.batch(some)

    def batch(self, letters: Sequence[Letter], partition: str = "letters", generation: int = 0) -> Batch:
        """Letters as one batch of that partition."""
        self._given.update((letter.place, letter) for letter in letters)
        self._seen.update(letter.place for letter in letters)
        messages = tuple(letter.message for letter in letters)
        return Batch(messages=messages, partition=partition, generation=generation)

    def owns(self, batch: Batch) -> bool:
        return True

    def commit(self, batch: Batch) -> None:
        """The box is told what became of each."""
        places = [message.position for message in batch.messages]
        self._settle([(self._given[place], self._refused.get(place)) for place in places])
        for place in places:  # only now: what fails is done again
            del self._given[place]
            self._refused.pop(place, None)

    def dead_letter(self, message: Message, reason: str) -> None:
        self._refused[message.position] = reason

    def close(self) -> None:
        """Let go of the box's letters."""
        if self._letters is not None:
            self._letters.close()
