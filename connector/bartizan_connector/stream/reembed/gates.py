"""Gates before a swap: what was measured, within which limit, and what a person chose to pass over."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from bartizan_connector.base.errors import Stop
from bartizan_connector.store.backend import Store
from bartizan_connector.store.recall import Exam
from bartizan_connector.stream.reembed.heads import Difference
from bartizan_connector.stream.reembed.judged import Judged, Search, agreement

Name = Literal["count", "heads", "recall", "ndcg", "agreement"]
_TURNS, _STALE_SECONDS = 3, 2.0
NAMES: tuple[Name, ...] = ("count", "heads", "recall", "ndcg", "agreement")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What is still good enough."""

    missing: int = 0
    """Documents that may be missing, or be too many."""
    behind: int = 0
    """Ids of which something older may be there, or something else at the same version."""
    recall: float = 0.95
    """The least share of the 10 best that each index must find."""
    ndcg: float = 0.01
    """By how much nDCG@10 may be lower than now."""
    agreement: float | None = None
    """The least share of the 10 best that both must find; None: told, and no gate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """One gate. Without a value it was not measured, without a limit it is only told."""

    name: Name
    value: float | None
    limit: float | None
    passed: bool
    told: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Searches:
    """How the running and the new towers search, what is judged, and with which queries they are compared."""

    now: Search
    new: Search
    judged: Judged | None = None
    queries: Sequence[str] = ()


def same(difference: Difference, limits: Limits) -> Iterator[Gate]:
    """`count` and `heads`."""
    extra = difference.extra + difference.own
    wrong = difference.missing + extra
    told = f"{difference.documents:,} documents, {difference.copied:,} in the new one"
    if wrong:
        told += f"; {difference.missing:,} missing, {extra:,} too many: {', '.join(difference.examples)}"
    yield Gate(name="count", value=wrong, limit=limits.missing, passed=wrong <= limits.missing, told=told)
    wrong = difference.behind + difference.unlike
    told = f"{difference.behind:,} ids of which something older is there"
    told += f"; {difference.told_unlike}" if difference.unlike else ""
    told += f": {', '.join(difference.examples)}" if wrong else ""
    yield Gate(name="heads", value=wrong, limit=limits.behind, passed=wrong <= limits.behind, told=told)


def found(store: Store, limits: Limits) -> Gate:
    """`recall`: of the worst leg. A search may be behind the newest writes, so what fails is measured again. A leg that
    has rows and cannot be asked for them fails."""
    exams = {leg.name: Exam.of(store, leg.name) for leg in store.collection.legs}
    for turn in range(_TURNS):
        measured = {leg: exam.taken(partial(store.search, leg)) for leg, exam in exams.items()}
        known = {leg: each.recall for leg, each in measured.items() if each.queries}
        worst = min(known.values(), default=None)
        if worst is None or worst >= limits.recall or turn + 1 == _TURNS:
            break
        time.sleep(_STALE_SECONDS)
    silent = {leg: each.rows for leg, each in measured.items() if each.rows and not each.queries}
    parts = [f"{leg} {value:.3f}" for leg, value in known.items()]
    parts += [f"{leg} none of {rows:,} rows: the vectors drawn of them are empty" for leg, rows in silent.items()]
    told = ", ".join(parts) or "nothing is stored"
    passed = not silent and (worst is None or worst >= limits.recall)
    return Gate(name="recall", value=worst, limit=limits.recall, passed=passed, told=f"of the 10 best, found: {told}")


def judged(searches: Searches | None, limits: Limits) -> Iterator[Gate]:
    """`ndcg` and `agreement`."""
    if searches is None or searches.judged is None:
        told = "not measured: give --judged, a BEIR folder"
        yield Gate(name="ndcg", value=None, limit=None, passed=True, told=told)
    else:
        now, new = searches.judged.ndcg(searches.now), searches.judged.ndcg(searches.new)
        told = f"nDCG@10 over {len(searches.judged.queries):,} queries: {now:.4f} now, {new:.4f} with the new towers"
        passed = new >= now - limits.ndcg - 1e-9
        yield Gate(name="ndcg", value=new - now, limit=-limits.ndcg, passed=passed, told=told)
    value = agreement(searches.queries, searches.now, searches.new) if searches else None
    told = "not measured: nothing to compare with" if value is None else f"{value:.3f} of the 10 best are the same"
    passed = limits.agreement is None or value is None or value >= limits.agreement
    yield Gate(name="agreement", value=value, limit=limits.agreement, passed=passed, told=told)


def require(gates: Sequence[Gate], forced: Sequence[Name]) -> Mapping[Name, bool]:
    """Which gates hold (false: passed over); a Stop names those that do not, and are not forced."""
    failed = [gate for gate in gates if not gate.passed and gate.name not in forced]
    if failed:
        reasons = "; ".join(f"{gate.name}: {gate.told} (limit {gate.limit:g})" for gate in failed)
        names = " ".join(f"--force {gate.name}" for gate in failed)
        raise Stop(f"not swapped, everything stands as it did. {reasons}. Mend that, change the limit, or add {names}")
    return {gate.name: gate.passed for gate in gates}
