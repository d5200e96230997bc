"""`bartizan collection`, `init` and `verify`, and what `ingest` has learned for them."""

from tests.trial.uses import Use, uses

_NOWHERE = "cannot read the configuration nowhere.toml"


def _everywhere(verbs: dict[str, str]) -> list[Use]:
    """Each verb with a configuration that is not there."""
    return uses("collection", *((f"collection {verb} --config nowhere.toml", 2, _NOWHERE) for verb in verbs.values()))


_VERBS = {
    "list": "list --json",
    "show": "show --json",
    "count": "count --json",
    "get": "get d1 --json",
    "put": "put corpus.jsonl --json",
    "delete": "delete d1 --json",
    "drop": "drop --yes",
    "compact": "compact --json",
    "backup": "backup copy.bartizan",
}

USES = [
    *_everywhere(_VERBS),
    *uses(
        "collection",
        ("collection", 2, "Usage: bartizan collection|list"),
        ("collection lst", 2, "No such command"),
        ("collection count --filter 'yeer > 1'", 2, "yeer"),
        ("collection count --filter 'year >'", 2, "year|end|value"),
        ("collection get", 2, "Missing argument"),
        ("collection get nobody", 1, "nobody"),
        ("collection put nowhere.jsonl", 2, "nowhere.jsonl"),
        ("collection put bad.jsonl", 1, "refused|could not|not valid JSON", {"files": {"bad.jsonl": "{\n"}}),
        ("collection delete", 2, "Missing argument"),
        ("collection drop", 2, "--yes"),
        ("collection compact --keep-days -1", 2, "must be greater than or equal to 0"),
        ("collection backup corpus.jsonl", 2, "corpus.jsonl"),
        ("collection show", 2, "there is no collection 'news'", {"swap": {'"docs"': '"news"'}, "name": "show news"}),
    ),
    *uses(
        "init",
        ("init", 2, "Missing argument|TOWER|tower"),
        ("init nowhere --out new.toml", 2, "nowhere"),
        ("init {export}", 2, "bartizan.toml"),
        ("init {export} --out bartizan.toml", 2, "bartizan.toml"),
        ("init {export} --out new.toml --name ''", 2, "name"),
        ("init {export} --out new.toml --uri sqlite:x", 2, "sqlite"),
        ("init {export} --out new.toml --source ''", 2, "source"),
        ("init {data} --out new.toml", 2, "tower|export"),
    ),
    *uses(
        "verify",
        ("verify nowhere.toml", 2, _NOWHERE),
        ("verify --repair nowhere.toml", 2, _NOWHERE),
        ("verify --vectors some", 2, "vectors"),
        ("verify --vectors -1", 2, "vectors"),
        ("verify --json --vectors all nowhere.toml", 2, _NOWHERE),
        ("verify", 2, "there is no collection 'news'", {"swap": {'"docs"': '"news"'}, "name": "verify news"}),
    ),
    *uses(
        "index",
        ("index", 2, "Usage: bartizan index|show"),
        ("index shw", 2, "No such command"),
        ("index show --verbose --quiet", 2, "exclude each other"),
        ("index build --verbose --quiet", 2, "exclude each other"),
        ("index probe --verbose --quiet", 2, "exclude each other"),
        ("index show nowhere.toml", 2, _NOWHERE),
        ("index build nowhere.toml", 2, _NOWHERE),
        ("index probe nowhere.toml", 2, _NOWHERE),
        ("index show --leg sparse --json", 2, "no leg 'sparse'; it has dense"),
        ("index build --leg sparse", 2, "no leg 'sparse'; it has dense"),
        ("index probe --leg sparse --json", 2, "no leg 'sparse'; it has dense"),
        ("index build --kind hsnw --json", 2, "the kind 'hsnw' is not known; there are auto, flat, hnsw"),
        ("index build --kind gpu_cagra", 2, "the embedded store builds no index as gpu_cagra asks"),
        ("index show", 2, "there is no collection 'news'", {"swap": {'"docs"': '"news"'}, "name": "index show news"}),
        *(
            ("index show", 2, told, {"swap": {'uri = "index.bartizan"\nlexical = true': table}, "name": table})
            for table, told in (
                ('uri = "index.bartizan"\nindex = "gpu_cagra"', "the embedded store builds its own indexes"),
                ('uri = "index.db"\nindex = "diskann"', "Milvus Lite builds no diskann index"),
                ('uri = "index.db"\nindex = { kind = "hnsw", M = 1 }', "M of hnsw must be from 2 to 2048, but 1"),
                ('uri = "http://127.0.0.1:9"\nindex = { kind = "ivf_flat", nlist = 65537 }', "from 1 to 65536"),
                ('uri = "http://127.0.0.1:9"\nindex = { kind = "gpu_ivf_pq", nbits = 9 }', "from 4 to 8"),
                ('uri = "http://127.0.0.1:9"\nindex = { M = 5 }', "the kind is missing"),
                ('uri = "http://127.0.0.1:9"\nindex = "sparse_wand"', "sparse_wand is for sparse legs"),
                ('uri = "http://127.0.0.1:9"\nindexes.other = "hnsw"', "backend.indexes.other: there is no such leg"),
            )
        ),
    ),
    *uses(
        "ingest",
        ("ingest --force", 2, "--force is about --prune"),
        ("ingest --prune", 1, "nothing was pruned", {"files": {"corpus.jsonl": "{\n"}, "name": "prune by dead lines"}),
        ("ingest --follow", 2, "files have an end, and are not followed"),
        ("ingest --follow --until-caught-up", 2, "give one of them"),
        ("ingest bartizan.toml docs.jsonl", 2, "expected - for standard input"),
    ),
]
