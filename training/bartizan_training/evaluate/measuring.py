"""Measures of ranked answers, by ir-measures: the mean over a split's queries, and each query's own value."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bartizan_connector.base.errors import WrongUse, missing_extra

try:
    import ir_measures
except ImportError as error:
    raise missing_extra("ir-measures", "local") from error

DEPTH = 100
"""How many documents a query's answer holds: what the deepest measure looks at."""


@dataclass(frozen=True, slots=True)
class Measured:
    """Values by measure, spelled as ir-measures prints it."""

    metrics: dict[str, float]
    """Mean over all judged queries; one without an answer counts as 0."""
    per_query: dict[str, dict[str, float]]
    """Query → measure → value."""


def measures(relevant_from: int = 1) -> tuple[str, ...]:
    """What is measured. nDCG takes grades as gains; the others take a grade of at least `relevant_from` as a yes."""
    if relevant_from < 1:
        raise WrongUse(f"relevant-from {relevant_from}: a document is relevant from grade 1 or above")
    at = "" if relevant_from == 1 else f"(rel={relevant_from})"
    return ("nDCG@10", f"RR{at}@10", f"AP{at}@{DEPTH}", f"R{at}@10", f"R{at}@{DEPTH}")


def require_relevant(qrels: Mapping[str, Mapping[str, int]], relevant_from: int, *, where: str) -> None:
    """Refuse judgements by which nothing could be found right: every measure would be 0, whatever the towers do."""
    top = max(grade for grades in qrels.values() for grade in grades.values())
    if top < relevant_from:
        way_out = f"give --relevant-from {top} or lower" if top >= 1 else "give a split that judges some relevant"
        raise WrongUse(
            f"{where} judges no document relevant: its highest grade is {top}, and a document is relevant from "
            f"{relevant_from}; {way_out}"
        )


def measure(
    qrels: Mapping[str, Mapping[str, int]], answers: Mapping[str, Sequence[str]], *, relevant_from: int = 1
) -> Measured:
    """Measure each judged query's answer: its documents, best first, in exactly that order."""
    names = measures(relevant_from)
    run = {query: _scores(query, documents) for query, documents in answers.items()}
    per_query: dict[str, dict[str, float]] = {query: {} for query in qrels}
    for value in ir_measures.iter_calc([ir_measures.parse_measure(name) for name in names], qrels, run):
        per_query[value.query_id][str(value.measure)] = float(value.value)
    metrics = {name: sum(values[name] for values in per_query.values()) / len(per_query) for name in names}
    ordered = {query: {name: values[name] for name in names} for query, values in per_query.items()}
    return Measured(metrics, ordered)


def without_own(query: str, documents: Sequence[str]) -> list[str]:
    """The answer without the document that has the query's own id, as the BEIR harness measures it: where the queries
    are documents themselves (ArguAna), each would find itself first. Ask for one more than `DEPTH`."""
    return [document for document in documents if document != query][:DEPTH]


def _scores(query: str, documents: Sequence[str]) -> dict[str, float]:
    """Scores that fall with the rank: ir-measures' back-ends break ties each in their own order, so there are none."""
    if len(set(documents)) != len(documents):
        raise WrongUse(f"the answer to query '{query}' names a document twice")
    return {document: float(-rank) for rank, document in enumerate(documents)}
