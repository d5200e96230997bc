"""`bartizan reembed`: new towers for a collection that is in use, without downtime."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bartizan_connector.base.console import counted, err, out
from bartizan_connector.base.errors import WrongUse, interruptible
from bartizan_connector.base.progress import progress
from bartizan_connector.base.stopping import told_to_stop
from bartizan_connector.config import Config

if TYPE_CHECKING:
    from bartizan_connector.documents.reembed import Towers
    from bartizan_connector.stream.reembed.gates import Gate, Name
    from bartizan_connector.stream.reembed.heads import Difference
    from bartizan_connector.stream.reembed.names import Place
    from bartizan_connector.stream.reembed.reembedding import Outcome

reembed = typer.Typer(
    no_args_is_help=True,
    help="Give a collection that is in use new towers: fill it anew beside itself, judge it, move its name.",
)

New = Annotated[Path, typer.Argument(metavar="NEW.toml", help="The configuration with the new towers.")]
Old = Annotated[Path, typer.Option("--config", help="The running configuration, with the towers of now.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Judged = Annotated[Path | None, typer.Option(metavar="DATA", help="A BEIR folder: gate on nDCG@10.")]
Split = Annotated[str, typer.Option(help="Which qrels of it.")]
_DEFAULT = Path("bartizan.toml")
_WAY_ON = "what was encoded is stored. Run the same command again: it goes on where it stopped"
_MEANINGS = {
    "stands": "the new towers' spaces are those that stand there: no document has to be encoded",
    "absent": "nothing is made for the new towers yet",
    "filling": "the next collection is there, and is not in use",
    "swapped": "the new collection is in use, the former one is kept",
}


@reembed.command("plan")
def plan_reembedding(
    new: New,
    sample: Annotated[int, typer.Option(min=1, max=10_000, help="Documents to measure with.")] = 256,
    as_json: AsJson = False,
) -> None:
    """What changes, and what it will take: a sample of the documents is encoded, and nothing is written."""
    with _towers(new) as towers:
        place = towers.reembedding.look()
        difference = towers.reembedding.difference()
        facts: dict[str, Any] = {**_places(place), "changes": _changes(place), "difference": _lag(difference)}
        if place.state != "stands":
            with towers.encoders(towers.new) as encoders:
                estimate = towers.reembedding.plan(encoders, cutter=towers.cutter(towers.new), sample=sample)
            facts |= asdict(estimate) | {"seconds": estimate.seconds, "tokens": estimate.tokens}
    if as_json:
        out.print_json(data=facts)
        return
    for change in facts["changes"]:
        out.print(change, markup=False)
    _tell_difference(difference, "ids to be brought over")
    if place.state == "stands":
        out.print("a query-tower-only upgrade: no document is encoded. bartizan reembed swap judges it", markup=False)
        return
    out.print(f"{estimate.documents:>14,}  documents, of which {estimate.sampled:,} were measured", markup=False)
    for leg, cost in estimate.legs.items():
        speed = estimate.documents / cost.seconds if cost.seconds else 0.0
        out.print(
            f"{cost.tokens:>14,}  tokens, {leg}: {speed:,.0f} documents a second here, {_time(cost.seconds)}; "
            f"{cost.truncated:.0%} longer than the tower reads; vectors {_size(cost.storage_bytes)}, index in memory "
            f"{_size(cost.index_bytes)}",
            markup=False,
        )
    out.print(
        f"{_time(estimate.seconds):>14}  to encode all; text once more {_size(estimate.text_bytes)}", markup=False
    )


@reembed.command("run")
def run_reembedding(
    new: New,
    follow: Annotated[bool, typer.Option("--follow", help="Go on, until told to stop.")] = False,
    source: Annotated[str, typer.Option("--from", help="stored text, or the compacted topic alone.")] = "stored",
    every: Annotated[float, typer.Option(min=0.1, help="Least seconds between two looks at what is stored.")] = 2.0,
    as_json: AsJson = False,
) -> None:
    """Fill the next collection beside the one in use, and keep it up with that. Searches and the worker go on.

    Every document is taken as it is stored, with its version and hash, and deletions too. Where [source] is a topic, it
    is read from its beginning as well, under a group of its own. Killed, it goes on where it was.
    """
    if source not in ("stored", "topic"):
        raise WrongUse(f"--from takes stored or topic, but {source!r:.80} came")
    with _towers(new) as towers, interruptible(_WAY_ON), told_to_stop() as stop:
        topic = towers.topic()
        if source == "topic" and topic is None:
            raise WrongUse('--from topic needs [source] kind = "kafka" in the new configuration')
        place = towers.reembedding.look()
        if place.state == "stands":
            out.print_json(data=_places(place)) if as_json else out.print(_MEANINGS["stands"], markup=False)
            return
        with (
            towers.encoders(towers.new) as encoders,
            towers.words(towers.new, place.next) as words,
            progress(f"re-embedding {place.wanted.name}") as tick,
        ):
            outcome = towers.reembedding.run(
                encoders,
                cutter=towers.cutter(towers.new),
                words=words,
                topic=topic,
                back_fill=source == "stored",
                follow=follow,
                every=every,
                stop=stop,
                on_batch=lambda share: tick(share.read),
            )
    _tell(outcome, as_json)


@reembed.command("status")
def status_of_reembedding(
    new: New,
    probe: Annotated[bool, typer.Option("--probe", help="Measure the recall of the new index too.")] = False,
    as_json: AsJson = False,
) -> None:
    """What stands where, how far the next collection has come, and which gates hold."""
    from bartizan_connector.stream.reembed.gates import Limits

    with _towers(new) as towers:
        place = towers.reembedding.look()
        difference = towers.reembedding.difference()
        gates = towers.reembedding.gates(difference, Limits(), probe=probe)
    facts = _places(place) | {"difference": _lag(difference), "gates": [asdict(gate) for gate in gates]}
    if as_json:
        out.print_json(data=facts)
        return
    for name in ("state", "serving", "next", "former"):
        out.print(f"{name:<10} {facts[name] or '-'}", markup=False)
    out.print(_MEANINGS[place.state], markup=False)
    _tell_difference(difference, "ids to be brought over")
    _tell_gates(gates, ())


@reembed.command("swap")
def swap_collections(
    new: New,
    config: Old = _DEFAULT,
    judged: Judged = None,
    split: Split = "test",
    force: Annotated[
        list[str] | None, typer.Option(metavar="GATE", help="Pass over count, heads, recall, ndcg or agreement.")
    ] = None,
    max_missing: Annotated[int, typer.Option(min=0, help="count: documents that may be missing or too many.")] = 0,
    max_behind: Annotated[int, typer.Option(min=0, help="heads: ids that may be older.")] = 0,
    min_recall: Annotated[float, typer.Option(min=0, max=1, help="recall: of the new index.")] = 0.95,
    ndcg_tolerance: Annotated[float, typer.Option(min=0, max=1, help="ndcg: how much lower it may be.")] = 0.01,
    min_agreement: Annotated[
        float | None, typer.Option(min=0, max=1, help="agreement: of the 10 best; without, it is only told.")
    ] = None,
    settle: Annotated[float, typer.Option(min=0, help="Seconds to wait for what is being written.")] = 15.0,
    as_json: AsJson = False,
) -> None:
    """Bring over the newest changes, judge the next collection by every gate, and move the name to it in one step.

    Who has the former collection open goes on with it: start readers and workers with the new configuration afterwards,
    or let readers follow (`FollowingRetriever`). The former one is kept for `bartizan reembed rollback`.
    """
    from bartizan_connector.documents.reembed import read_judged
    from bartizan_connector.stream.reembed.gates import Limits

    forced = _forced(force or [])
    limits = Limits(
        missing=max_missing, behind=max_behind, recall=min_recall, ndcg=ndcg_tolerance, agreement=min_agreement
    )
    data = read_judged(judged, split)
    with _towers(new, config, settle=settle) as towers, interruptible(_WAY_ON):
        place = towers.reembedding.look()
        with (
            towers.encoders(towers.new, needed=place.state == "filling") as encoders,
            towers.searching(data) as searches,
            towers.words(towers.new, place.next) as words,
        ):
            outcome = towers.reembedding.swap(
                encoders,
                limits=limits,
                searches=searches,
                force=forced,
                cutter=towers.cutter(towers.new),
                words=words,
            )
    _tell(outcome, as_json)
    if not as_json and outcome.place.state == "swapped":
        err.print(
            f"'{place.wanted.name}' stands for {outcome.place.serving}. Start readers and workers with {new} now; "
            f"until no worker writes by the old configuration, keep bartizan reembed run {new} --follow going",
            markup=False,
        )


@reembed.command("rollback")
def roll_back(
    new: New,
    config: Old = _DEFAULT,
    at_once: Annotated[bool, typer.Option("--at-once", help="Move the name first, bring over then.")] = False,
    follow: Annotated[bool, typer.Option("--follow", help="Go on bringing over, until told to stop.")] = False,
    as_json: AsJson = False,
) -> None:
    """Encode with the old towers what was written since the swap, and give the former collection its name back."""
    with _towers(new, config) as towers, interruptible(_WAY_ON), told_to_stop() as stop:
        assert towers.old is not None
        place = towers.reembedding.look()
        with towers.encoders(towers.old) as encoders, towers.words(towers.old, place.former) as words:
            outcome = towers.reembedding.rollback(
                encoders, at_once=at_once, follow=follow, cutter=towers.cutter(towers.old), words=words, stop=stop
            )
    _tell(outcome, as_json)


@reembed.command("drop")
def drop_the_other(
    new: New,
    yes: Annotated[bool, typer.Option("--yes", help="Yes, remove it.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Though it holds what the other lacks.")] = False,
) -> None:
    """Remove the collection that is not in use: after a swap the former one, before it the next one."""
    with _towers(new) as towers:
        place = towers.reembedding.look()
        if not yes and place.other is not None:
            raise WrongUse(
                f"this removes {place.other} for good ('{place.wanted.name}' stays); add --yes if that is meant"
            )
        dropped = towers.reembedding.drop(force=force)
    err.print(f"dropped {dropped}; '{place.wanted.name}' stands for {place.serving}", markup=False)


@contextmanager
def _towers(new: Path, old: Path | None = None, *, settle: float = 15.0) -> "Iterator[Towers]":
    from bartizan_connector.documents.reembed import Towers

    with Towers.opened(Config.load(new), Config.load(old) if old else None, settle=settle) as towers:
        yield towers


def _forced(names: list[str]) -> "tuple[Name, ...]":
    from bartizan_connector.stream.reembed.gates import NAMES

    if unknown := [name for name in names if name not in NAMES]:
        raise WrongUse(f"--force takes the name of a gate ({', '.join(NAMES)}), but {unknown[0]!r:.80} came")
    return tuple(name for name in NAMES if name in names)


def _places(place: "Place") -> dict[str, Any]:
    return {
        "collection": place.wanted.name,
        "state": place.state,
        "serving": place.serving,
        "next": place.next,
        "former": place.former,
    }


def _changes(place: "Place") -> list[str]:
    """What the new towers change of each leg."""
    before = {leg.name: leg for leg in place.contract.legs}
    after = {leg.name: leg for leg in place.wanted.legs}
    changes = [f"leg {name} goes" for name in before if name not in after]
    for name, leg in after.items():
        was = before.get(name)
        if was is None:
            changes.append(f"leg {name} is new: {leg.kind}, {leg.dim}, space {leg.space_id}")
        elif was != leg:
            changes.append(
                f"leg {name}: {was.kind}, {was.dim}, space {was.space_id} → {leg.kind}, {leg.dim}, space {leg.space_id}"
            )
    return changes


def _lag(difference: "Difference | None") -> dict[str, Any] | None:
    return None if difference is None else asdict(difference) | {"lag": difference.lag}


def _tell_difference(difference: "Difference | None", what: str) -> None:
    if difference is None:
        return
    out.print(f"{difference.lag:>12,}  {what}", markup=False)
    if difference.unlike:
        err.print(f"gate heads will fail: {difference.told_unlike}", markup=False, style="yellow")


def _tell(outcome: "Outcome", as_json: bool) -> None:
    if as_json:
        facts = _places(outcome.place) | {"report": asdict(outcome.report), "difference": _lag(outcome.difference)}
        gates = {"gates": [asdict(gate) for gate in outcome.gates], "forced": list(outcome.forced)}
        out.print_json(data=facts | gates | {"refused": dict(outcome.reasons), "writer": outcome.writer})
    else:
        report = outcome.report
        for name in ("written", "unchanged", "deleted", "stale", "dead"):
            if getattr(report, name):
                out.print(f"{getattr(report, name):>12,}  {name}", markup=False)
        _tell_gates(outcome.gates, outcome.forced)
        _tell_difference(outcome.difference, "ids to be brought over still")
        out.print(f"{outcome.place.state}: {_MEANINGS[outcome.place.state]}", markup=False)
    for id, reason in outcome.reasons.items():
        err.print(f"{id}: {reason}", markup=False, style="yellow")
    if outcome.writer:
        err.print(f"another was at work and brought over the changes: {outcome.writer}", markup=False, style="yellow")
    if outcome.reasons:
        err.print(f"{counted(len(outcome.reasons), 'document')} cannot be brought over", markup=False, style="yellow")
        raise typer.Exit(1)


def _tell_gates(gates: "tuple[Gate, ...]", forced: "tuple[Name, ...]") -> None:
    for gate in gates:
        verdict = "holds" if gate.passed else "passed over" if gate.name in forced else "fails"
        if gate.limit is None:
            verdict = "told"
        out.print(f"{gate.name:<10} {verdict:<12} {gate.told}", markup=False)


def _time(seconds: float) -> str:
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min" if minutes else f"{seconds:.0f} s"


def _size(number: float) -> str:
    for unit in ("B", "KB", "MB", "GB"):
        if number < 1000:
            return f"{number:.1f} {unit}" if unit != "B" else f"{number:.0f} B"
        number /= 1000
    return f"{number:.1f} TB"
