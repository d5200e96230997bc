"""`bartizan tower`."""

from tests.trial.uses import uses

_HF = '{"model_type": "bert"}'

USES = [
    *uses(
        "tower import",
        ("tower import minilm", 2, "Missing option '--out'"),
        ("tower import '' --out t", 2, "no model was named"),
        ("tower import ./nowhere --out t", 2, "./nowhere is not a folder"),
        ("tower import a/b/c --out t", 2, "is not a folder"),
        ("tower import 'no name at all' --out t", 2, "there is no folder"),
        ("tower import corpus.jsonl --out t", 2, "is not a folder"),
        ("tower import . --out t", 2, "holds no model: it has neither modules.json nor config.json"),
        ("tower import {tower} --out t", 2, "is a Bartizan tower or an export already"),
        ("tower import {export} --out t", 2, "is a Bartizan tower or an export already"),
        ("tower import empty.gguf --out t", 1, "empty.gguf", {"files": {"empty.gguf": b""}}),
        ("tower import text.gguf --out t", 1, "text.gguf", {"files": {"text.gguf": b"once upon a time" * 100}}),
        ("tower import m --out t", 1, r"m.*(weights|tokenizer|safetensors)", {"files": {"m/config.json": _HF}}),
        ("tower import m --out t", 1, "config.json", {"files": {"m/config.json": "{"}, "name": "half a config.json"}),
        ("tower import m --out t", 2, "nonsense", {"files": {"m/config.json": '{"model_type": "nonsense"}'}}),
        (
            "tower import m --out t",
            1,
            "config.json",
            {"files": {"m/config.json": "[]"}, "name": "a list as config.json"},
        ),
        ("tower import minilm --out corpus.jsonl", 2, "corpus.jsonl is a file; give the folder to write"),
        ("tower import minilm --out .", 2, "is not empty and holds no"),
        ("tower import minilm --out {export}", 2, "is not empty and holds no"),
        ("tower import minilm --out t --kind dence", 2, "--kind 'dence' is not one of dense, sparse"),
        ("tower import minilm --out t --pooling avg", 2, "--pooling 'avg' is not one of cls, mean"),
        ("tower import minilm --out t --similarity euclid", 2, "not one of cosine, dot"),
        ("tower import minilm --out t --max-tokens 0", 2, r"must be greater than or equal to \d, but .0. came"),
        ("tower import minilm --out t --special-tokens off", 2, "not one of template, none"),
        ("tower import minilm --out t --layers a", 2, "--layers 'a': expected numbers and ranges as in 0-5,11"),
        ("tower import minilm --out t --layers ''", 2, "expected numbers and ranges"),
        ("tower import minilm --out t --layers 3-1", 2, "--layers '3-1'"),
        ("tower import minilm --out t --layers 0-999999999", 2, "--layers"),
        ("tower import minilm --out t --attention both", 2, "not one of published, bidirectional"),
        ("tower import minilm --out t --precision fp16", 2, "not one of fp32, bf16"),
    ),
    *uses(
        "tower show",
        ("tower show", 2, "Missing argument"),
        ("tower show nowhere", 2, "nowhere is not a tower: it has no tower.json"),
        ("tower show corpus.jsonl", 2, "is not a tower"),
        ("tower show .", 2, "is not a tower"),
        ("tower show {repo}", 2, "is not a tower"),
        ("tower show t", 1, "t/tower.json", {"files": {"t/tower.json": "{}"}, "name": "an empty tower.json"}),
        (
            "tower show t",
            1,
            "t/tower.json",
            {"files": {"t/tower.json": b"\xff\xfe"}, "name": "a tower.json in no UTF-8"},
        ),
        ("tower show t", 1, "t/tower.json", {"files": {"t/tower.json": "[]"}, "name": "a list as tower.json"}),
    ),
]
