"""config.pbtxt: parsed by Triton's own protobuf, compared with golden files, and free of what is known to stall."""

from pathlib import Path

import pytest

from bartizan_connector.base.errors import WrongUse
from bartizan_connector.encode.triton.contract import served_spec, served_version, tower_mark
from bartizan_connector.space.spec import RoleSpec, TowerSpec
from bartizan_triton.repository.config import as_json, as_text, model_config, parsed
from bartizan_triton.repository.engine import build_script
from bartizan_triton.repository.serving import Backend, Device, Serving

GOLDEN = Path(__file__).with_name("golden")
DENSE = TowerSpec(
    name="dense",
    dim=384,
    pooling="mean",
    roles={"query": RoleSpec(prefix="query: ", max_tokens=64), "document": RoleSpec(max_tokens=512)},
    tokenizer_hash="a" * 64,
    architecture_hash="b" * 64,
    weights_hash="c" * 64,
)
SPARSE = TowerSpec(
    name="sparse",
    kind="sparse",
    dim=30522,
    pooling="max",
    head="lm",
    normalise=False,
    similarity="dot",
    roles={"document": RoleSpec(max_tokens=256)},
    tokenizer_hash="a" * 64,
    architecture_hash="b" * 64,
    weights_hash="d" * 64,
)
SERVINGS: list[tuple[str, TowerSpec, Serving]] = [
    ("onnxruntime-cpu", DENSE, Serving()),
    ("onnxruntime-gpu-sparse", SPARSE, Serving(device="gpu", instances=2, max_batch=128, delay_us=500)),
    ("tensorrt", DENSE, Serving(backend="tensorrt", device="gpu", max_batch=32)),
    ("python", DENSE, Serving(backend="python", instances=2)),
]


@pytest.mark.parametrize(("name", "spec", "serving"), SERVINGS, ids=[name for name, *_ in SERVINGS])
def test_the_configuration_is_the_golden_one_and_triton_parses_it(name: str, spec: TowerSpec, serving: Serving) -> None:
    config = model_config(name, serving, {3: spec}, current=3)
    text = as_text(config)
    golden = GOLDEN / f"{name}.pbtxt"
    assert text == golden.read_text(encoding="utf-8")
    assert parsed(text) == config
    parameters = {key: value.string_value for key, value in parsed(text).parameters.items()}
    assert served_version(parameters, [3]) == 3
    assert served_spec(name, parameters, 3) == spec


@pytest.mark.parametrize(("name", "spec", "serving"), SERVINGS, ids=[name for name, *_ in SERVINGS])
def test_nothing_is_set_that_stalls_the_batcher_or_outlives_a_reload(
    name: str, spec: TowerSpec, serving: Serving
) -> None:
    config = model_config(name, serving, {1: spec}, current=1)
    assert config.HasField("dynamic_batching")
    assert not config.dynamic_batching.HasField("default_queue_policy")
    assert not config.dynamic_batching.priority_levels
    assert not config.dynamic_batching.priority_queue_policy
    assert not config.response_cache.enable


def test_several_versions_are_served_and_one_is_current() -> None:
    config = model_config("m", Serving(), {1: DENSE, 2: DENSE, 3: DENSE}, current=1, serve=[2, 1])
    assert list(config.version_policy.specific.versions) == [1, 2]
    assert {"bartizan.tower.1", "bartizan.tower.2"} <= set(config.parameters)
    assert "bartizan.tower.3" not in config.parameters
    assert '"bartizan.version"' in as_json(config)


@pytest.mark.parametrize(
    ("ready", "version"), [([1], 1), ([1, 2], 1), ([2], 2), ([2, 3], 3), ([], None)], ids=lambda value: str(value)
)
def test_clients_use_the_named_version_while_it_is_ready_else_the_newest(ready: list[int], version: int | None) -> None:
    assert served_version({"bartizan.version": "1"}, ready) == version


def test_the_mark_holds_every_digit_of_a_tower() -> None:
    mark = tower_mark("tw-00000000000000ff80000000000000aa")
    assert mark.tolist() == [255, -(2**63) + 170]
    with pytest.raises(WrongUse, match="is not a tower_id"):
        tower_mark("tw-12")


def test_the_engine_is_built_where_it_runs_for_every_shape_that_may_come() -> None:
    script = build_script(DENSE, Serving(backend="tensorrt", device="gpu", max_batch=32))
    assert "--minShapes=input_ids:1x1,attention_mask:1x1" in script
    assert "--optShapes=input_ids:8x32,attention_mask:8x32" in script
    assert "--maxShapes=input_ids:32x512,attention_mask:32x512" in script


@pytest.mark.parametrize(
    ("backend", "device", "how", "why"),
    [
        ("tensorrt", "cpu", {}, "runs on a GPU only"),
        ("pytorch", "cpu", {}, "is not one of python, onnxruntime, tensorrt"),
        ("python", "tpu", {}, "is not one of cpu, gpu"),
        ("python", "cpu", {"max_batch": 0}, "max_batch = 0 makes no sense"),
    ],
)
def test_what_cannot_be_served_is_refused(backend: Backend, device: Device, how: dict[str, int], why: str) -> None:
    with pytest.raises(WrongUse, match=why):
        Serving(backend=backend, device=device, **how)  # type: ignore[arg-type]
