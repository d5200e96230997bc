"""The program itself, its environment, doctor, demo."""

from tests.trial.uses import uses

USES = [
    *uses(
        "program",
        ("", 2, "Usage: bartizan"),
        ("serch x", 2, "No such command 'serch'. Did you mean 'search'"),
        ("--verison", 2, "No such option: --verison"),
        ("search", 2, "Missing argument"),
        ("search a b", 2, "unexpected extra argument"),
        ("search x --configg y", 2, "No such option: --configg"),
        ("search x -k many", 2, "must be a whole number, but .many. came"),
        ("search x --k", 2, "requires an argument"),
        ("search x -q -v", 2, "--verbose and --quiet exclude each other"),
        ("tower", 2, "Usage: bartizan tower"),
        ("tower improt minilm", 2, "No such command 'improt'"),
        ("repo", 2, "Usage: bartizan repo"),
        ("train", 2, "Missing argument"),
        ("export", 2, "Missing argument"),
        ("eval", 2, "Missing argument"),
        ("ingest one.toml two.toml", 2, "unexpected extra argument"),
        ("doctor bartizan.toml", 2, "unexpected extra argument"),
    ),
    *uses(
        "environment",
        (
            "search tower",
            0,
            r"BARTIZAN_BACKEND_URI sets nothing.*did you mean BARTIZAN__BACKEND__URI",
            {"environment": {"BARTIZAN_BACKEND_URI": "x"}, "name": "BARTIZAN_BACKEND_URI=x bartizan search tower"},
        ),
        *(
            (
                "search tower",
                code,
                told,
                {"environment": {name: value}, "name": f"{name}={value} bartizan search tower"},
            )
            for name, value, code, told in (
                ("BARTIZAN__BACKEND__URL", "x", 2, "BARTIZAN__BACKEND__URL: unknown key backend.url; known here"),
                (
                    "BARTIZAN__SEARCH__TIMEOUT",
                    "soon",
                    2,
                    "BARTIZAN__SEARCH__TIMEOUT: .*must be a number, but 'soon' came",
                ),
                ("BARTIZAN__SEARCH__TIMEOUT", "-1", 2, "greater than 0, but"),
                ("BARTIZAN__SEARCH__WEIGHTS", "[1", 2, "BARTIZAN__SEARCH__WEIGHTS: expected JSON"),
                ("BARTIZAN__SEARCH__WEIGHTS__LEXICAL", "a lot", 2, "must be a number, but 'a lot' came"),
                ("BARTIZAN__COLLECTION__NAME__X", "y", 2, "'name' is a value, not a table"),
                (
                    "BARTIZAN__SPACES__DENSE__DOCUMENT_TOWER",
                    "nowhere",
                    2,
                    "nowhere is not a tower: it has no tower.json",
                ),
                ("BARTIZAN__BACKEND", "index", 2, "BARTIZAN__BACKEND: .*must be a table"),
            )
        ),
    ),
    *uses(
        "doctor",
        ("doctor --config nowhere.toml", 2, "cannot read the configuration nowhere.toml"),
        ("doctor --server localhost:8001", 2, "grpc://"),
        ("doctor --server grpc://127.0.0.1:9", 4, "127.0.0.1:9"),
        ("doctor", 2, "corpse.jsonl", {"swap": {"corpus.jsonl": "corpse.jsonl"}}),
        ("doctor", 2, "nowhere is not a tower", {"swap": {"{export}": "nowhere"}})
        if False
        else ("doctor --config .", 2, "cannot read"),
        (
            "doctor",
            2,
            "is not valid TOML",
            {"files": {"bartizan.toml": "[collection"}, "name": "doctor, of half a file"},
        ),
        (
            "doctor",
            4,
            "127.0.0.1:9",
            {"swap": {'"index.bartizan"\nlexical = true': '"http://127.0.0.1:9"\ntimeout = 0.5'}},
        ),
    ),
    *uses(
        "demo",
        ("demo --seed -1", 2, "must be greater than or equal to \d, but .-1. came"),
        ("demo --threads -1", 2, "must be greater than or equal to \d, but .-1. came"),
        ("demo --out corpus.jsonl", 2, "corpus.jsonl is a file; give the demo another --out"),
        ("demo --out .", 2, "is not empty and no demo made it"),
        ("demo --out {export}", 2, "is not empty and no demo made it"),
        ("demo quick", 2, "unexpected extra argument"),
    ),
]
