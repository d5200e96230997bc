"""A process that re-embeds, and kills itself with SIGKILL at the n-th effect; what it encodes it writes down first.

An effect is a call that changes something in a store, or that moves a name. Run as a program it forks a child for each
number that is given, one after the other, so that what is imported is imported once.
"""

import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bartizan_connector.documents.reembed import Towers
from bartizan_connector.space.spec import Role
from bartizan_connector.space.vectors import Vectors
from bartizan_connector.store.settings import BackendSettings
from bartizan_connector.stream.reembed import stored
from tests.connector.stream.reembed.project import HeldSettings, Pair, pair

EFFECTS = ("upsert", "touch", "delete", "point")


class Doom:
    """Counts effects and ends at the last one that is allowed, before or after it is done."""

    def __init__(self, kill_at: int) -> None:
        self._left = kill_at

    def over(self, thing: Any) -> Any:
        return _Doomed(thing, self)

    def around(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def doomed(*arguments: Any, **named: Any) -> Any:
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            result = call(*arguments, **named)
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return doomed


class _Doomed:
    def __init__(self, thing: Any, doom: Doom) -> None:
        self._thing, self._doom = thing, doom

    def open(self, *arguments: Any, **named: Any) -> Any:
        return self._doom.over(self._thing.open(*arguments, **named))

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._thing, name)
        return self._doom.around(value) if name in EFFECTS else value


def project(folder: Path, which: str) -> Pair:
    """The two configurations; what is encoded as a document stands in `encoded` of the folder."""
    both = pair(folder / which, BackendSettings(uri=str(folder / "index.bartizan")))
    encode = both.new_tower.encode

    def written(texts: Sequence[str], role: Role, **more: Any) -> Vectors:
        if role == "document":
            with (folder / "encoded").open("a") as file:
                file.write("".join(f"{text}\n" for text in texts))
        return encode(texts, role, **more)

    both.new_tower.encode = written  # type: ignore[method-assign, assignment]
    return both


def cycle(folder: Path, which: str, kill_at: int) -> None:
    """Run, swap, write, rollback: whatever of that is still to be done."""
    stored._BATCH = 5  # several batches, of which some are done when death comes
    both = project(folder, which)
    doom = Doom(kill_at)
    backend = HeldSettings(uri=both.new.backend.uri, held=doom.over(both.new.backend.open()))
    config = both.new.model_copy(update={"backend": backend})
    with (
        Towers.opened(config, settle=2) as towers,
        towers.encoders(both.new) as encoders,
    ):
        if towers.reembedding.look().state != "swapped":
            towers.reembedding.run(encoders)
            towers.reembedding.swap(encoders)


def main(folder: Path, kills: Sequence[int]) -> None:
    for number, kill_at in enumerate(kills):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                cycle(folder, f"child{number}", kill_at)
                status = 0
            except BaseException:  # noqa: BLE001  told here, as nothing of the parent's may run in the child
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(status)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), [int(each) for each in sys.argv[2:]])
