"""Reembedding: one collection and the towers that it shall have; the verbs, in the order in which they are used.

`run` fills the next collection and keeps it up with the one in use; `swap` judges it and moves the name; `rollback`
moves the name back; `drop` removes the one that is not in use. Each can be killed anywhere and called again. The name
moves in one step, and before it does the former collection has got a name too. Who has either open keeps it.

Nothing that the running worker writes is lost by a move: what it wrote before is brought over before the name moves,
and what it writes after, into the collection that it has open, is brought over after. A verb that finds another at work
on the collection that is to be filled (a `run --follow`) waits for that one to have done it.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from threading import Event

from bartizan_connector.base.errors import Retry, Stop, WrongUse
from bartizan_connector.encode.encoder import Encoder
from bartizan_connector.store.backend import Backend, Store
from bartizan_connector.store.collection import Collection
from bartizan_connector.stream.chunks import Cutter
from bartizan_connector.stream.patience import Patience
from bartizan_connector.stream.reembed import names
from bartizan_connector.stream.reembed.copying import Follower
from bartizan_connector.stream.reembed.estimate import SAMPLE, Estimate, estimate
from bartizan_connector.stream.reembed.gates import Gate, Limits, Name, Searches, found, judged, require, same
from bartizan_connector.stream.reembed.heads import Difference, compare
from bartizan_connector.stream.reembed.names import Place
from bartizan_connector.stream.report import Report
from bartizan_connector.stream.source import Source
from bartizan_connector.stream.words import Words

log = logging.getLogger(__name__)

Encoders = Mapping[str, Encoder]
SETTLE_SECONDS = 15.0
EVERY_SECONDS = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a run or a move came to."""

    place: Place
    report: Report
    """What was encoded and written on the way."""
    reasons: Mapping[str, str]
    """Id → why it could not be written."""
    difference: Difference | None = None
    gates: tuple[Gate, ...] = ()
    forced: tuple[Name, ...] = ()
    """Gates that do not hold and were passed over."""
    writer: str = ""
    """Who was at work on the collection that was to be filled, as the lease tells it; "": nobody."""


class Reembedding:
    """`wanted`: the collection as the new towers make it, under the name that it has."""

    def __init__(
        self, backend: Backend, wanted: Collection, *, patience: Patience | None = None, settle: float = SETTLE_SECONDS
    ) -> None:
        self._backend = backend
        self._wanted = wanted
        self._patience = patience
        self._settle = settle

    def look(self) -> Place:
        """What stands where; WrongUse where it cannot be re-embedded as it is."""
        place = names.look(self._backend, self._wanted)
        if _fields(place.contract) != _fields(self._wanted):
            raise WrongUse(
                f"the new configuration declares other [collection] fields than '{self._wanted.name}' has; what is "
                "stored has no others, so re-embedding changes towers only. Give it the same fields"
            )
        if "text" not in _fields(place.contract):
            raise WrongUse(f"collection '{self._wanted.name}' keeps no text, so there is nothing to encode anew from")
        return place

    def plan(self, encoders: Encoders, *, cutter: Cutter | None = None, sample: int = SAMPLE) -> Estimate:
        """What it will cost, measured on so many documents."""
        with self._open(self.look().serving) as store:
            return estimate(store, encoders, self._wanted, cutter=cutter, sample=sample)

    def run(
        self,
        encoders: Encoders,
        *,
        cutter: Cutter | None = None,
        words: Words | None = None,
        topic: Callable[[bool], Source] | None = None,
        back_fill: bool = True,
        follow: bool = False,
        every: float = EVERY_SECONDS,
        stop: Event | None = None,
        on_batch: Callable[[Report], None] | None = None,
    ) -> Outcome:
        """Fill the next collection from what is stored, and from the topic, if there is one (`topic(follow)` opens it
        under a group of its own). `back_fill=False`: from the topic alone. `follow`: go on until told to stop."""
        place = self.look()
        if place.state == "stands":
            raise WrongUse(_STANDS.format(name=self._wanted.name))
        if place.state != "swapped" and place.former not in (None, place.next):
            raise WrongUse(
                f"{place.former} is kept from an earlier re-embedding of '{self._wanted.name}'; remove it first: "
                "bartizan reembed drop, with the configuration that is in use now"
            )
        if place.serving == self._wanted.name:
            raise WrongUse(
                f"'{self._wanted.name}' was made by 0.1.0 and has no name that could be moved; ingest with the new "
                "towers into a collection of another name"
            )
        source = place.former if place.state == "swapped" else place.serving
        assert source is not None
        with self._open(source) as old, self._next(place) as new:
            follower = Follower(
                source=old,
                target=new,
                encoders=encoders,
                cutter=cutter,
                words=words,
                patience=self._patience,
                stop=stop or Event(),
                on_batch=on_batch,
            )
            if back_fill or topic is None:
                follower.catch_up()
            if topic is not None and not follow:
                with closing(topic(False)) as read:
                    follower.read(read)
            if follow:
                follower.follow((lambda: topic(True)) if topic is not None else None, every=every)
            elif topic is not None and back_fill:
                follower.catch_up()
            difference = None if follower.stop.is_set() else compare(old, new)  # of millions it takes minutes
        return Outcome(place=self.look(), report=follower.report, reasons=follower.reasons, difference=difference)

    def difference(self, *, settle: float = 0.0) -> Difference | None:
        """How far the collection that is not in use has come; or, after a swap, the one in use beside the former. None
        where there is only one."""
        place = self.look()
        if place.other is None:
            return None
        ahead, behind = (place.former, place.serving) if place.state == "swapped" else (place.serving, place.next)
        assert ahead is not None
        assert behind is not None
        with self._open(ahead) as source, self._open(behind) as target:
            return compare(source, target, settle=settle)

    def gates(self, difference: Difference | None, limits: Limits, *, probe: bool = False) -> tuple[Gate, ...]:
        """What can be told without a query: of a difference that was found, and of the index where it is probed."""
        place = self.look()
        measured = list(same(difference, limits)) if difference is not None else []
        if probe:
            with self._open(place.next or place.serving) as store:
                measured.append(found(store, limits))
        return tuple(measured)

    def swap(
        self,
        encoders: Encoders,
        *,
        limits: Limits | None = None,
        searches: Callable[[Place], Searches | None] | None = None,
        force: Sequence[Name] = (),
        cutter: Cutter | None = None,
        words: Words | None = None,
    ) -> Outcome:
        """Bring over what is new, judge, move the name, bring over what was written meanwhile. Where the spaces are
        those that stand there, there is only the judging."""
        place = self.look()
        limits = limits or Limits()
        if place.state == "swapped":
            raise WrongUse(f"'{self._wanted.name}' stands for the new collection {place.serving} already")
        if place.state == "absent":
            raise WrongUse(
                f"nothing was made for these towers yet: bartizan reembed run fills it beside {place.serving}"
            )
        if place.state == "stands":
            measured = tuple(judged(searches(place) if searches else None, limits))
            held = require(measured, force)
            return Outcome(place=place, report=Report(), reasons={}, gates=measured, forced=_passed_over(held))
        assert place.next is not None
        with self._open(place.serving) as old, self._open(place.next) as new:
            follower = Follower(
                source=old, target=new, encoders=encoders, cutter=cutter, words=words, patience=self._patience
            )
            writer, difference = self._bring_over(follower, own=True)
            measured = (
                *same(difference, limits),
                found(new, limits),
                *judged(searches(place) if searches else None, limits),
            )
            held = require(measured, force)
            self._backend.point(names.next_name(self._wanted), place.next)
            self._backend.point(names.former_name(self._wanted.name), place.serving)
            names.move(self._backend, self._wanted.name, expected=place.serving, to=place.next)
            after, difference = self._bring_over(follower)
        return Outcome(
            place=self.look(),
            report=follower.report,
            reasons=follower.reasons,
            difference=difference,
            gates=measured,
            forced=_passed_over(held),
            writer=after or writer,
        )

    def rollback(
        self,
        encoders: Encoders,
        *,
        at_once: bool = False,
        follow: bool = False,
        every: float = EVERY_SECONDS,
        cutter: Cutter | None = None,
        words: Words | None = None,
        stop: Event | None = None,
    ) -> Outcome:
        """Bring over what only the new collection has into the former one, by its own towers (`encoders`), and give it
        the name back. `at_once`: move first, and bring over then. `follow`: go on bringing over until told to stop, for
        workers that still write into the new one."""
        place = self.look()
        if place.state != "swapped":
            told = "no former one is kept" if place.state == "stands" else "it is not of the new towers"
            raise WrongUse(
                f"there is nothing to go back to: '{self._wanted.name}' stands for {place.serving}, and {told}. Use "
                "the configuration of the towers that you want"
            )
        assert place.former is not None
        with self._open(place.serving) as new, self._open(place.former) as former:
            follower = Follower(
                source=new,
                target=former,
                encoders=encoders,
                cutter=cutter,
                words=words,
                patience=self._patience,
                stop=stop or Event(),
            )
            if not at_once:
                writer, difference = self._bring_over(follower)
                if lacking := difference.lag + difference.unlike:
                    raise Stop(
                        f"not rolled back, everything stands as it did: the former collection lacks {lacking:,} "
                        f"changes ({', '.join(difference.examples)}){f', and {writer}' if writer else ''}. Run it "
                        "again when nobody else writes there; give what has other content at the same version again "
                        "with a higher _version; or add --at-once, which moves the name first"
                    )
            names.move(self._backend, self._wanted.name, expected=place.serving, to=place.former)
            writer, difference = self._bring_over(follower)
            if follow:
                follower.follow(None, every=every)
        return Outcome(
            place=self.look(),
            report=follower.report,
            reasons=follower.reasons,
            difference=difference,
            writer=writer,
        )

    def drop(self, *, force: bool = False) -> str:
        """Remove the collection that does not stand under the name, and say which; never the one that does. One that
        holds what the one in use lacks stays, unless forced: somebody still writes there."""
        place = self.look()
        if place.other is None:
            raise WrongUse(f"there is nothing to drop: '{self._wanted.name}' stands for {place.serving}, the only one")
        if not force:
            with self._open(place.other) as other, self._open(place.serving) as serving:
                difference = compare(other, serving, settle=self._settle)
            if lacking := difference.lag + difference.unlike:
                raise Stop(
                    f"nothing was dropped: {place.other} holds {lacking:,} changes that the collection in use "
                    f"lacks ({', '.join(difference.examples)}). After a swap, bartizan reembed run with the "
                    "configuration of the towers in use brings over what is newer; --force drops it as it is"
                )
        if names.look(self._backend, self._wanted).serving == place.other:
            raise Stop(f"'{self._wanted.name}' stands for {place.other} by now; nothing was dropped")
        self._backend.drop(place.other)
        return place.other

    def _bring_over(self, follower: Follower, *, own: bool = False) -> tuple[str, Difference]:
        """Catch up; or, where another is at work on it, wait until that one has. Who it is, and what is left."""
        writer = ""
        try:
            follower.target.claim()
        except Retry as error:
            writer = str(error)
            log.info("%s", error)
        else:
            follower.catch_up()
        return writer, compare(follower.source, follower.target, settle=self._settle, own=own)

    def _open(self, physical: str) -> AbstractContextManager[Store]:
        """One that is there, whatever its name."""
        contract = self._backend.collections().get(physical)
        if contract is None:
            raise Stop(f"collection {physical} was dropped meanwhile; look again: bartizan reembed status")
        return closing(self._backend.open(contract, create=False, name=physical))

    def _next(self, place: Place) -> AbstractContextManager[Store]:
        """The one for the new towers; made where it is not there yet."""
        name = names.next_name(self._wanted)
        if place.next is not None:
            self._backend.point(name, place.next)
        return closing(self._backend.open(self._wanted, name=name))


_STANDS = (
    "the new towers are of the spaces that '{name}' has, so no document has to be encoded: bartizan reembed swap "
    "judges the new query tower on the collection as it stands"
)


def _fields(collection: Collection) -> dict[str, str]:
    return {spec.name: spec.type for spec in collection.fields}


def _passed_over(held: Mapping[Name, bool]) -> tuple[Name, ...]:
    return tuple(name for name, holds in held.items() if not holds)
