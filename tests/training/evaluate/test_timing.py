"""Engines take turns, and what only warms them up is not counted."""

from bartizan_training.evaluate.timing import take_turns


def test_every_engine_gets_every_block_in_turns() -> None:
    asked: list[tuple[str, int]] = []
    engines = {name: lambda item, name=name: asked.append((name, item)) for name in ("a", "b")}
    times = take_turns(engines, [[1, 2, 3], [4, 5, 6]], warm_up=1)
    a_first = [*(("a", item) for item in (1, 2, 3)), *(("b", item) for item in (1, 2, 3))]
    b_first = [*(("b", item) for item in (4, 5, 6)), *(("a", item) for item in (4, 5, 6))]
    assert asked == a_first + b_first
    assert {name: (len(taken.wall), len(taken.cpu)) for name, taken in times.items()} == {"a": (4, 4), "b": (4, 4)}
