"""`bartizan search`, `eval`, and the judged collections that they are asked on."""

from tests.trial.uses import Use, uses

_QRELS = "query-id\tcorpus-id\tscore\nq1\td1\t1\n"


def _beir(told: str, *, code: int = 2, words: str = "eval b --tower {export}", name: str, **files: str) -> list[Use]:
    """A BEIR folder of one document, with something else in it."""
    names = {"corpus": "b/corpus.jsonl", "queries": "b/queries.jsonl", "qrels": "b/qrels/test.tsv"}
    whole = {"corpus": '{"_id": "d1", "text": "one"}\n', "queries": '{"_id": "q1", "text": "two"}\n', "qrels": _QRELS}
    return uses(
        "judged data",
        (words, code, told, {"files": {names[key]: text for key, text in (whole | files).items()}, "name": name}),
    )


def _filter(text: str, told: str) -> list[Use]:
    return uses("filter", (f'search tower --filter "{text}"', 2, told))


USES = [
    *uses(
        "search",
        ("search x --config nowhere.toml", 2, "cannot read the configuration nowhere.toml"),
        ("search ''", 2, "text|word|empty"),
        ("search '   '", 2, "text|word|empty"),
        ("search x -k 0", 2, "k = 0 is out of range; ask for 1 to"),
        ("search x -k -3", 2, "k = -3 is out of range; ask for 1 to"),
        ("search x -k 100000", 2, "k = 100000 is out of range; ask for 1 to"),
        ("search x -k 1.5", 2, "must be a whole number, but .1.5. came"),
        ("search x --timeout 0", 2, "timeout = 0.* is no deadline"),
        ("search x --timeout -1", 2, "is no deadline"),
        ("search x --timeout nan", 2, "is no deadline"),
        ("search x --timeout inf", 2, "is no deadline"),
        ("search x --timeout soon", 2, "must be a number, but .soon. came"),
        ("search x --legs sparse", 2, "unknown leg 'sparse'; this collection is searched by dense, lexical"),
        ("search x --legs ''", 2, "leg"),
        ("search x --legs ,", 2, "leg"),
        ("search x --legs dense,dense", 2, "names a leg twice"),
        ("search x --legs Dense", 2, "unknown leg 'Dense'"),
        (
            "search x",
            2,
            "there is no collection 'news'",
            {"swap": {'"docs"': '"news"'}, "name": "another collection's name"},
        ),
        (
            "search x",
            2,
            "there is no collection",
            {"swap": {"index.bartizan": "other.bartizan"}, "name": "an index that is not there"},
        ),
        (
            "search x",
            2,
            "there is no collection",
            {"swap": {'"index.bartizan"\nlexical = true': '"memory:"'}, "name": 'uri = "memory:"'},
        ),
        (
            "search x --legs lexical",
            2,
            "there is no lexical leg",
            {"swap": {"lexical = true": ""}, "name": "--legs lexical without words"},
        ),
        ("search x", 3, "space", {"swap": {'"{export}"': '"{other_export}"'}, "name": "another document tower"}),
        (
            "search x",
            2,
            "bartizan export",
            {
                "swap": {'"{export}"': '"{export}"\nquery_tower = "{query}"'},
                "name": "a query tower that is not exported",
            },
        ),
        (
            "search x",
            2,
            "index.bartizan is not a store of Bartizan; give .backend. uri another path",
            {"files": {"index.bartizan": b"no database" * 1000}, "name": "an index that is none"},
        ),
        ("search tower --legs nosuch --json", 2, "unknown leg 'nosuch'"),
    ),
    *_filter("", "filter"),
    *_filter("yaer == 2000", "yaer"),
    *_filter("year = 2000", "="),
    *_filter("year == '2000'", "year"),
    *_filter("year > 'a'", "year"),
    *_filter("lang == 5", "lang"),
    *_filter("lang == en", "en"),
    *_filter("year >", "year >|end|value"),
    *_filter("== 3", "=="),
    *_filter("year == 2000 and", "and|end"),
    *_filter("year == 2000 && lang == 'en'", "&"),
    *_filter("(year == 2000", r"\("),
    *_filter("year == 2000)", r"\)"),
    *_filter("year in 2000", "in|\\["),
    *_filter("lang like 'e%'", "like"),
    *_filter("lang == 'en", "'"),
    *_filter("not", "not|end"),
    *_filter("year == 1e999", "1e999|finite|inf"),
    *_filter("year == 2000; drop table docs", ";"),
    *_filter("year == 99999999999999999999999", "year|int"),
    *uses(
        "eval",
        ("eval nowhere --tower {export}", 2, "nowhere is not a folder; give one in BEIR layout"),
        ("eval corpus.jsonl --tower {export}", 2, "is not a folder"),
        ("eval . --tower {export}", 2, "queries.jsonl"),
        ("eval {data}", 2, "give --tower, .* or --config"),
        ("eval {data} --tower {export} --config bartizan.toml", 2, "give --tower, .* or --config"),
        ("eval {data} --config bartizan.toml --engine torch", 2, "leave --query-tower, --engine"),
        ("eval {data} --config nowhere.toml", 2, "cannot read the configuration"),
        ("eval {data} --config bartizan.toml --server grpc://x:1", 2, "--server"),
        ("eval {data} --tower nowhere", 2, "nowhere is not a tower"),
        ("eval {data} --tower {export} --query-tower {other_export}", 3, "do not belong together"),
        ("eval {data} --tower {export} --query-tower nowhere", 2, "nowhere is not a tower"),
        ("eval {data} --tower {export} --query-tower {sparse}", 3, "do not belong together"),
        ("eval {data} --tower {export} --engine abacus", 2, "unknown engine 'abacus'"),
        ("eval {data} --tower {export} --engine torch", 2, "is an export without torch weights"),
        ("eval {data} --tower {export} --engine triton", 2, "--engine triton and --server URL .* belong together"),
        ("eval {data} --tower {export} --server grpc://127.0.0.1:9", 2, "belong together"),
        ("eval {data} --tower {export} --engine triton --server 127.0.0.1:9", 2, "grpc://"),
        ("eval {data} --tower {export} --engine triton --server grpc://127.0.0.1:9", 4, "127.0.0.1:9"),
        ("eval {data} --tower {export} --split dve", 2, "has no split 'dve'; it has test, train"),
        ("eval {data} --tower {export} --split ../qrels/test", 2, "has no split"),
        ("eval {data} --tower {export} --baseline nowhere.json", 2, "cannot read the result nowhere.json"),
        ("eval {data} --tower {export} --baseline corpus.jsonl", 2, "is not a result of 'bartizan eval'"),
        ("eval {data} --tower {export} --baseline .", 2, "cannot read the result"),
        ("eval {data} --tower {export} --keep corpus.jsonl", 2, "holds no vectors that an evaluation kept"),
        ("eval {data} --tower {export} --keep .", 2, "is a folder; give the file of vectors"),
        ("eval {data} --tower {export} --out .", 2, "is a folder; give the JSON file to write"),
        ("eval {data} --tower {export} --out /dev/full", 2, "is a device or a pipe"),
        ("eval {data} --tower {export} --out corpus.jsonl/x", 2, "corpus.jsonl is not a folder"),
        ("eval {data} --tower {export} --out /proc/x.json", 1, "cannot write /proc/x.json"),
        ("eval {data} --tower {export} --relevant-from 0", 2, "a document is relevant from grade 1"),
        ("eval {data} --tower {export} --relevant-from 9", 2, "its highest grade is 1"),
        ("eval {data} --tower {export} --threads -1", 2, r"must be greater than or equal to \d, but .-1. came"),
    ),
    *_beir("corpus.jsonl is empty", name="no documents", corpus=""),
    *_beir("queries.jsonl is empty", name="no queries", queries=""),
    *_beir("holds no judgements", name="no judgements", qrels="query-id\tcorpus-id\tscore\n"),
    *_beir("expected the header query-id", name="an empty file of judgements", qrels=""),
    *_beir("expected the header query-id", name="judgements without a header", qrels="q1\td1\t1\n"),
    *_beir(
        "expected the header query-id ⇥ corpus-id ⇥ score .tabs between.",
        name="judgements with blanks for tabs",
        qrels=_QRELS.replace("\t", " "),
    ),
    *_beir(
        "expected query-id ⇥ corpus-id ⇥ whole number", name="a grade that is no number", qrels=_QRELS[:-2] + "yes\n"
    ),
    *_beir(
        "query 'q9' is judged but not in queries.jsonl",
        name="a query that is not there",
        qrels=_QRELS.replace("q1", "q9"),
    ),
    *_beir(
        "document 'd9' is judged but not in corpus.jsonl",
        name="a document that is not there",
        qrels=_QRELS.replace("d1", "d9"),
    ),
    *_beir("judged before, otherwise", name="two grades for one pair", qrels=_QRELS + "q1\td1\t2\n"),
    *_beir("judges no document relevant", name="grades of 0 only", qrels=_QRELS[:-2] + "0\n"),
    *_beir("the id 'd1' was used before", name="a document twice", corpus='{"_id": "d1", "text": "a"}\n' * 2),
    *_beir("corpus.jsonl:1: not a line of JSON", name="a corpus that is CSV", corpus="id,text\nd1,one\n"),
    *_beir('expected a string "text", got nothing', name="a document without text", corpus='{"_id": "d1"}\n'),
    *_beir('expected a string "_id", got nothing', name="a query without an id", queries='{"text": "a"}\n'),
    *_beir("expected a JSON object, got list", name="a list among the documents", corpus="[]\n"),
    *_beir(
        "does not hold the 1 documents? of b", name="--config of other documents", words="eval b --config bartizan.toml"
    ),
]
