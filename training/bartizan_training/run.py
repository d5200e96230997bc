"""The folder of a run: opened for a new recipe, or for the one that it was begun with."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from accelerate import Accelerator

from bartizan_connector.base.aside import write_aside
from bartizan_connector.base.errors import SpaceMismatch, Stop, WrongUse
from bartizan_training import plan
from bartizan_training.artefacts import KEPT_FOR_THE_RUN, Artefact, Artefacts
from bartizan_training.data.contents import Content, Contents, contents_of, readers_of, size_of
from bartizan_training.plan import Sources
from bartizan_training.recipe import Recipe, differences


@dataclass(frozen=True, slots=True)
class Run:
    """RUN; what lies where in it is said in loop.py."""

    folder: Path

    @property
    def recipe(self) -> Path:
        """The recipe as it is run."""
        return self.folder / "recipe.toml"

    @property
    def metrics(self) -> Path:
        """Losses and rates."""
        return self.folder / "metrics.jsonl"

    @property
    def data(self) -> Path:
        """What the files hold that its steps read."""
        return self.folder / "data.json"

    @property
    def threads(self) -> Path:
        """How many threads it trains with on a CPU."""
        return self.folder / "threads"

    @property
    def towers(self) -> Path:
        """The newest towers, when the run is done."""
        return self.folder / "towers"

    @property
    def artefacts(self) -> Artefacts:
        """What its steps made."""
        return Artefacts(self.folder / "artefacts")

    def step_folder(self, number: int, name: str) -> Path:
        """What a step notes while it runs, and that it is done."""
        return self.folder / "steps" / f"{number}-{name}"

    def require_place(self, *, resume: bool) -> None:
        """Refuse a folder that holds something else, or a run that nobody asked to go on with."""
        if self.recipe.exists():
            if not resume:
                raise WrongUse(f"{self.folder} exists already; go on with it by --resume, or give a new folder")
        elif self.folder.exists() and (not self.folder.is_dir() or self._holds_more_than_a_start()):
            raise WrongUse(f"{self.folder} exists and is not a run (it has no recipe.toml); give a new folder")

    def _holds_more_than_a_start(self) -> bool:
        """Whether more lies in the folder than the tower that a run which was then refused has imported, and what is
        hidden (it was being written aside when a run was killed or the disk was full) or only for the run."""
        ours = (self.recipe, self.data, self.threads)
        inside = [path for path in self.folder.iterdir() if path not in ours and path.name[0] != "."]
        passing = tuple(f"-{kind}" for kind in KEPT_FOR_THE_RUN)
        return inside not in ([], [self.artefacts.root]) or any(
            path.name != "start-towers" and path.name[0] != "." and not path.name.endswith(passing)
            for path in self.artefacts.root.glob("*")
        )

    def open(self, recipe: Recipe, taken: Sequence[Sources], *, processes: int) -> None:
        """Make RUN, or check that what has begun in it is the same recipe's. Nothing is written before all is checked.

        A begun step, and all before it, must be as they were; later steps may be others now.
        """
        if not self.recipe.exists():
            recipe.require_paths()
            self._require_same_towers(recipe, recipe, len(recipe.steps))
            plan.check_towers(recipe, taken)
            plan.check_data(recipe, first=1, processes=processes)
            self._note_data(recipe, 0, self._noted_data())
            write_aside(self.recipe, recipe.identified().to_toml())
            return
        then = type(recipe).load(self.recipe)
        begun = self._begun()
        self._require_same_towers(then, recipe, begun)
        if changed := differences(then.facts(begun), recipe.facts(begun)):
            raise WrongUse(
                f"{self.folder} was begun with another recipe ({'; '.join(changed)}); resume with the recipe as it was "
                f"({self.recipe}), or train into a new folder"
            )
        noted = self._require_same_data(recipe, begun)
        if begun < len(recipe.steps):
            plan.check_towers(recipe, taken)
            plan.check_data(recipe, first=begun + 1, processes=processes)
        self._note_data(recipe, begun, noted)
        if then.facts(len(then.steps)) != recipe.facts(len(recipe.steps)):
            identified = recipe.model_copy(update={"identities": then.identities})
            write_aside(self.recipe, identified.identified().to_toml())

    def keep_data(self, recipe: Recipe, number: int) -> None:
        """Before that step begins: what is read again is as it was, and what is read for the first time is noted."""
        begun = max(self._begun(), number - 1)
        self._note_data(recipe, begun, self._require_same_data(recipe, begun))

    def done(self, number: int, name: str) -> Artefact | None:
        """The artefact of a step that is done."""
        path = self.step_folder(number, name) / "done.json"
        if not path.exists():
            return None
        try:
            folder = self.folder / json.loads(path.read_text(encoding="utf-8"))["artefact"]
            if not folder.is_dir():
                raise FileNotFoundError(f"{folder} is not there")
        except (OSError, ValueError, KeyError) as error:
            raise Stop(f"{path} is damaged: {error}; train again into another --out") from error
        return Artefact(folder, {})

    def note_done(self, step: Path, artefact: Artefact) -> None:
        """Say that the step is done."""
        facts = {"artefact": artefact.folder.relative_to(self.folder).as_posix()}
        write_aside(step / "done.json", json.dumps(facts) + "\n")

    @contextmanager
    def unbegun_when_refused(self, accelerator: Accelerator) -> Iterator[None]:
        """A run that fails before it has made anything leaves no recipe, so that the mended command may have its
        folder."""
        try:
            yield
        except BaseException:
            if accelerator.is_main_process and not self._holds_more_than_a_start():
                self.recipe.unlink(missing_ok=True)
                self.data.unlink(missing_ok=True)
                self.threads.unlink(missing_ok=True)
            raise

    def _require_same_towers(self, then: Recipe, now: Recipe, begun: int) -> None:
        """Refuse a starting tower that is another one than when the run began; of steps that have not begun, any will
        do."""
        of_begun = now.step_names[:begun]
        present = now.identified().identities or {}
        for key, path in now.starts.items():
            before, came = (then.identities or {}).get(key), present.get(key)
            if before and came and before != came and (key.partition(".")[0] in of_begun or "." not in key):
                raise SpaceMismatch(
                    f"{key} = {path} is another tower now than the one that {self.folder} begins with",
                    expected=before,
                    came=came,
                    way_out="Put the old tower back; or train into a new folder, without its line in [identities].",
                )

    def _require_same_data(self, recipe: Recipe, begun: int) -> Contents:
        """Refuse a file that a begun step has read, that another step would go on with, and that holds something else
        now. What only steps read that are done, or have not begun, may be anything. What is noted, as it looks now."""
        names = recipe.step_names
        left = {number for number, name in enumerate(names, start=1) if self.done(number, name) is None}
        noted = self._noted_data()
        kept = {
            file: min(readers & left)
            for file, readers in readers_of(recipe.step_files).items()
            if file in noted and readers & left and min(readers) <= begun
        }
        sizes = {file: then.bytes if (then := noted[file]) else None for file in kept}
        other, now = [file for file in kept if size_of(file) != sizes[file]], noted
        if not other:
            now = {**noted, **contents_of(kept, noted)}
            other = [file for file in kept if now[file] != noted[file]]
        if other:
            file, number = other[0], kept[other[0]]
            came = "is there, and was not," if noted[file] is None else "holds something else now,"
            raise WrongUse(
                f"the data changed since {self.folder} began to learn from it: {file} "
                f"{came if file.exists() else 'is not there any more,'} and step {number} ('{names[number - 1]}') "
                "would go on with that. Put the file back as it was, or train into a new folder"
            )
        return now

    def _note_data(self, recipe: Recipe, begun: int, noted: Contents) -> None:
        """Write down what the files hold; of those that a begun step has read, what they held then."""
        readers = readers_of(recipe.step_files)
        fresh = [file for file in readers if file not in noted or min(readers[file]) > begun]
        now = {**noted, **contents_of(fresh, noted)}
        told = {str(file): asdict(content) if content else None for file, content in now.items()}
        text = json.dumps(told, indent=1) + "\n"
        if not self.data.exists() or self.data.read_text(encoding="utf-8") != text:
            write_aside(self.data, text)

    def _noted_data(self) -> Contents:
        """Nothing where the run was begun by a version that noted none."""
        try:
            facts = json.loads(self.data.read_text(encoding="utf-8"))
            return {Path(file): Content(**content) if content else None for file, content in facts.items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
            raise Stop(f"{self.data} is damaged: {error}; train again into another --out") from error

    def _begun(self) -> int:
        """The number of the last step that has a checkpoint or is done; 0: none."""
        marks = [*self.folder.glob("steps/*/checkpoints/step-*"), *self.folder.glob("steps/*/done.json")]
        steps = [path.parent if path.name == "done.json" else path.parent.parent for path in marks]
        return max((int(step.name.split("-")[0]) for step in steps), default=0)
