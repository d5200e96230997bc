"""The program itself, its environment, doctor, demo."""

from tests.trial.uses import uses

_WRONG = {
    "demo": "--out corpus.jsonl",
    "demo-stream": "--out corpus.jsonl",
    "tower import": "./nowhere --out t",
    "tower show": "nowhere",
    "train": "nowhere --out run",
    "export": "nowhere --out e",
    "repo list": "corpus.jsonl",
    "repo pin": "nowhere m 1",
    "repo prune": "nowhere",
    "deploy": "nowhere --server grpc://127.0.0.1:9",
    "ingest": "nowhere.toml",
    "search": "x --config nowhere.toml",
    "eval": "nowhere --tower {export}",
    "doctor": "--config nowhere.toml",
    "init": "nowhere --out new.toml",
    "verify": "nowhere.toml",
    "mine": "nowhere --tower {tower} --out mined.jsonl",
    "study scaling": "nowhere --data {data} --out s",
    "study fraction": "nowhere --data {data} --out s",
    "study quantised": "--tower nowhere --data {data}",
    "tower cut": "nowhere --dim 4 --out t",
    **{
        f"collection {verb}": f"{words} --config nowhere.toml"
        for verb, words in {
            "list": "",
            "show": "",
            "count": "",
            "get": "d1",
            "put": "corpus.jsonl",
            "delete": "d1",
            "drop": "--yes",
            "compact": "",
            "backup": "copy.bartizan",
        }.items()
    },
}
"""Each command as it cannot work: that is told however quiet it is to be."""

USES = [
    *(
        use
        for command, words in _WRONG.items()
        for option in ("--quiet", "--verbose")
        for use in uses("quiet and verbose", (f"{command} {words} {option}", 2, "nowhere|corpus.jsonl"))
    ),
    *uses(
        "options",
        ("demo --quick --out corpus.jsonl", 2, "corpus.jsonl is a file; give the demo another --out"),
        ("demo --from-scratch --out .", 2, "is not empty and no demo made it"),
        ("demo-stream --demo nowhere --jars jars --out corpus.jsonl", 2, "corpus.jsonl is a file|needs java|needs mvn"),
        ("demo-stream --edits 0", 2, "must be greater than or equal to 1, but '0' came"),
        ("demo-stream --seconds 0", 2, "must be greater than or equal to 1, but '0' came"),
        ("demo-stream --rate 0", 2, "must be greater than or equal to 0.1, but '0' came"),
        ("deploy nowhere --server grpc://127.0.0.1:9 --dry-run", 2, "nowhere"),
        ("doctor --json --config nowhere.toml", 2, "cannot read the configuration nowhere.toml"),
        ("eval nowhere --tower {export} --json", 2, "nowhere is not a folder"),
        (
            "export {tower} --out r --format triton --delay-us -1",
            2,
            "must be greater than or equal to 0, but '-1' came",
        ),
        ("export {tower} --out r --format triton --terms 0", 2, "must be greater than or equal to 1, but '0' came"),
        ("export {tower} --out e --terms 5", 2, "--terms is for --format triton"),
        ("ingest nowhere.toml --reindex", 2, "cannot read the configuration nowhere.toml"),
        ("repo list corpus.jsonl --json", 2, "corpus.jsonl"),
        ("tower show nowhere --json", 2, "nowhere is not a tower"),
        ("tower import ./nowhere --out t --name x", 2, "./nowhere is not a folder"),
        ("tower import minilm --out t --name ''", 2, "the tower's name is empty"),
        ("tower import minilm --out {export} --replace", 2, "is not empty and holds no"),
        ("tower import ./nowhere --out t --echo", 2, "./nowhere is not a folder"),
        ("tower import ./nowhere --out t --query-prefix q --document-prefix d", 2, "./nowhere is not a folder"),
    ),
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
        ("ingest one.toml two.toml", 2, "expected - for standard input, but .two.toml. came"),
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
                    0,
                    "degraded: no dense leg: nowhere is not a tower: it has no tower.json",
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
        ("demo --seed -1", 2, r"must be greater than or equal to \d, but .-1. came"),
        ("demo --threads -1", 2, r"must be greater than or equal to \d, but .-1. came"),
        ("demo --out corpus.jsonl", 2, "corpus.jsonl is a file; give the demo another --out"),
        ("demo --out .", 2, "is not empty and no demo made it"),
        ("demo --out {export}", 2, "is not empty and no demo made it"),
        ("demo quick", 2, "unexpected extra argument"),
    ),
]
