"""Measures against their definitions, written out in a few lines of plain Python."""

import math
import runpy
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bartizan_connector.base.errors import WrongUse
from bartizan_training.evaluate import measuring
from bartizan_training.evaluate.measuring import DEPTH, measure, measures

documents = [f"d{number:02}" for number in range(30)]
qrels = st.dictionaries(
    st.sampled_from(["q1", "q2", "q3"]),
    st.dictionaries(st.sampled_from(documents), st.integers(0, 3), min_size=1, max_size=20),
    min_size=1,
)
answers = st.dictionaries(st.sampled_from(["q1", "q2", "q3"]), st.permutations(documents))


def ndcg(grades: dict[str, int], answer: list[str]) -> float:
    def gain(ranked: list[int]) -> float:
        return sum(grade / math.log2(rank + 1) for rank, grade in enumerate(ranked[:10], start=1))

    ideal = gain(sorted(grades.values(), reverse=True))
    return gain([grades.get(id, 0) for id in answer]) / ideal if ideal else 0.0


def expected(grades: dict[str, int], answer: list[str], least: int) -> list[float]:
    relevant = {id for id, grade in grades.items() if grade >= least}
    hits = [id in relevant for id in answer]
    total = max(1, len(relevant))
    first = hits.index(True) + 1 if True in hits else math.inf
    precisions = [sum(hits[:rank]) / rank for rank, hit in enumerate(hits[:DEPTH], start=1) if hit]
    return [
        ndcg(grades, answer),
        1 / first if first <= 10 else 0.0,
        sum(precisions) / total,
        sum(hits[:10]) / total,
        sum(hits[:DEPTH]) / total,
    ]


@given(qrels, answers, st.integers(1, 3))
def test_each_measure_is_what_its_definition_says(
    qrels: dict[str, dict[str, int]], answers: dict[str, list[str]], least: int
) -> None:
    measured = measure(qrels, answers, relevant_from=least)
    assert measured.per_query.keys() == qrels.keys()
    for query, grades in qrels.items():
        values = expected(grades, answers.get(query, []), least)
        assert list(measured.per_query[query].values()) == pytest.approx(values, abs=1e-6)
    for name in measures(least):
        mean = sum(values[name] for values in measured.per_query.values()) / len(qrels)
        assert measured.metrics[name] == pytest.approx(mean)


def test_the_names_are_those_that_ir_measures_prints() -> None:
    assert measures() == ("nDCG@10", "RR@10", "AP@100", "R@10", "R@100")
    assert measures(2) == ("nDCG@10", "RR(rel=2)@10", "AP(rel=2)@100", "R(rel=2)@10", "R(rel=2)@100")
    assert tuple(measure({"q": {"d": 2}}, {"q": ["d"]}, relevant_from=2).metrics) == measures(2)


def test_the_order_given_is_the_order_measured_whatever_the_ids() -> None:
    """The measures' back-ends would break ties by id, each in its own direction."""
    for right, wrong in (("a", "z"), ("z", "a"), ("9", "10")):
        assert measure({"q": {right: 1}}, {"q": [right, wrong]}).metrics["RR@10"] == 1.0
        assert measure({"q": {right: 1}}, {"q": [wrong, right]}).metrics["RR@10"] == 0.5


def test_a_judged_query_without_an_answer_counts_as_zero() -> None:
    measured = measure({"q1": {"d": 1}, "q2": {"d": 1}}, {"q1": ["d"]})
    assert measured.metrics["nDCG@10"] == 0.5
    assert measured.per_query["q2"]["R@100"] == 0.0


def test_an_answer_to_a_query_that_was_not_judged_counts_for_nothing() -> None:
    measured = measure({"q1": {"d": 1}}, {"q1": ["d"], "q9": ["x"]})
    assert measured.per_query.keys() == {"q1"}
    assert measured.metrics["nDCG@10"] == 1.0


def test_a_document_named_twice_is_refused() -> None:
    with pytest.raises(WrongUse, match="answer to query 'q1' names a document twice"):
        measure({"q1": {"d": 1}}, {"q1": ["d", "e", "d"]})


def test_relevance_from_grade_zero_is_refused() -> None:
    with pytest.raises(WrongUse, match="relevant-from 0: a document is relevant from grade 1"):
        measures(0)


def test_without_ir_measures_the_line_that_installs_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ir_measures", None)
    with pytest.raises(
        WrongUse, match=r"'ir-measures', which is not installed: pip install 'bartizan-search\[local\]'"
    ):
        runpy.run_path(measuring.__file__)
