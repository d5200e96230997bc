"""`bartizan ingest` and every table of `bartizan.toml`."""

from tests.trial.uses import uses

_LEX = '"index.bartizan"\nlexical = true'
_TOWER = '"{export}"'

USES = [
    *uses(
        "ingest",
        ("ingest nowhere.toml", 2, "cannot read the configuration nowhere.toml"),
        ("ingest corpus.jsonl", 2, "corpus.jsonl is not valid TOML"),
        ("ingest .", 2, "cannot read the configuration"),
        (
            "ingest",
            2,
            "is not valid TOML",
            {"files": {"bartizan.toml": b"\xff\xfe["}, "name": "a configuration in UTF-16"},
        ),
        ("ingest", 2, "collection: is missing", {"files": {"bartizan.toml": ""}, "name": "an empty configuration"}),
        ("ingest --json --strictt", 2, "No such option: --strictt"),
    ),
    *(
        use
        for told, code, swap in (
            ("has no .source.", 2, {'[source]\npath = "corpus.jsonl"\n': ""}),
            ("there is no JSON Lines file or folder at .*corpse", 2, {"corpus.jsonl": "corpse.jsonl"}),
            ("holds no .*jsonl", 2, {"corpus.jsonl": "empty"}),
            ("source.path: must be a path, but .. came", 2, {'"corpus.jsonl"': '""'}),
            ("source.path: must be a path, but 3 came", 2, {'"corpus.jsonl"': "3"}),
            (
                "unknown kind 'kafcka'; known: jsonl, kafka|must be 'jsonl', but 'kafcka' came",
                2,
                {'path = "corpus': 'kind = "kafcka"\npath = "corpus'},
            ),
            (
                "batch_size: must be .*greater than or equal to 1, but 0 came",
                2,
                {"[source]": "[source]\nbatch_size = 0"},
            ),
            ("batch_size: must be .*less than or equal to 1000", 2, {"[source]": "[source]\nbatch_size = 100000"}),
            ("batch_size: must be a whole number, but '8' came", 2, {"[source]": "[source]\nbatch_size = '8'"}),
            ("unknown key source.pth", 2, {"[source]": "[source]\npth = 'x'"}),
            ("would overwrite the source", 2, {"[source]": "[source]\ndead_letters = 'corpus.jsonl'"}),
            ("holds something else than dead letters", 2, {"[source]": "[source]\ndead_letters = 'bartizan.toml'"}),
            ("empty holds something else than dead letters", 2, {"[source]": "[source]\ndead_letters = 'empty'"}),
            ("nowhere is not a tower: it has no tower.json", 2, {_TOWER: '"nowhere"'}),
            ("document_tower: must be a path, but 3 came", 2, {_TOWER: "3"}),
            ("spaces.dense.document_tower: is missing", 2, {"document_tower = " + _TOWER: ""}),
            ("is a tower as it was trained.*bartizan export", 2, {_TOWER: '"{tower}"'}),
            (
                "unknown key spaces.dense.document_towr; known here: .*document_tower",
                2,
                {"document_tower": "document_towr"},
            ),
            ("do not belong together", 3, {_TOWER: _TOWER + '\nquery_tower = "{other_export}"'}),
            ("another space", 3, {_TOWER: '"{other_export}"'}),
            ("pins another space", 3, {_TOWER: _TOWER + '\nspace_id = "tw-0"'}),
            (
                "there is no table .encoders.gpu.; there are document, query",
                2,
                {_TOWER: _TOWER + '\ndocument_encoder = "gpu"'},
            ),
            ("spaces.lexical: that name is the word search's", 2, {"spaces.dense": "spaces.lexical"}),
            ("spaces.year: a field of the collection has that name", 2, {"spaces.dense": "spaces.year"}),
            ("must be a name of at most 60 letters", 2, {"spaces.dense": "spaces.'d e'"}),
            ("spaces: must .*1|spaces: is missing", 2, {"[spaces.dense]\ndocument_tower = " + _TOWER: "[spaces]"}),
            (
                "collection.name: must be a name of at most 60 letters.*'my docs' came",
                2,
                {'name = "docs"': 'name = "my docs"'},
            ),
            ("collection.name: must be a text, but 3 came", 2, {'name = "docs"': "name = 3"}),
            ("collection.name: is missing", 2, {'name = "docs"': ""}),
            ("type: must be 'string', 'int', 'float' or 'bool', but 'date' came", 2, {'type = "int"': 'type = "date"'}),
            ("default of 'year' must be of type int, but '0' came", 2, {"default = 0": 'default = "0"'}),
            (
                "'year' is declared twice",
                2,
                {'name = "lang", type = "string", default = "en"': 'name = "year", type = "int"'},
            ),
            ("'title' is stored without being declared", 2, {'"lang"': '"title"'}),
            ("keeps the name 'id' for itself", 2, {'"lang"': '"id"'}),
            ("was made with the fields lang .*but the configuration asks for language", 2, {'"lang"': '"language"'}),
            ("backend.lexical: must be a folder, or true", 2, {_LEX: '"index.bartizan"\nlexical = 5'}),
            ("lexical = true is for the embedded store", 2, {_LEX: '"index.db"\nlexical = true'}),
            ("holds something else than a word index", 2, {_LEX: '"new.bartizan"\nlexical = "{export}"'}),
            ("holds something else than a word index", 2, {_LEX: '"new.bartizan"\nlexical = "."'}),
            ("corpus.jsonl is no folder", 2, {_LEX: '"new.bartizan"\nlexical = "corpus.jsonl"'}),
            ("of 'memory:' nothing stays", 2, {_LEX: '"memory:"\nlexical = "words"'}),
            ("index: must be 'auto', 'flat' or 'hnsw', but 'ivf' came", 2, {_LEX: '"index.bartizan"\nindex = "ivf"'}),
            ("consistency: must be 'Strong'.*but 'strong' came", 2, {_LEX: '"index.bartizan"\nconsistency = "strong"'}),
            ("timeout: must be .*greater than 0, but 0 came", 2, {_LEX: '"index.bartizan"\ntimeout = 0'}),
            ("timeout: must be a number, but '30' came", 2, {_LEX: '"index.bartizan"\ntimeout = "30"'}),
            ("give token or token_file, not both", 2, {_LEX: '"http://127.0.0.1:9"\ntoken = "a:b"\ntoken_file = "t"'}),
            ("cannot read .backend. token_file .*nowhere", 2, {_LEX: '"http://127.0.0.1:9"\ntoken_file = "nowhere"'}),
            ("Milvus at http://127.0.0.1:9 is unreachable", 4, {_LEX: '"http://127.0.0.1:9"\ntimeout = 0.5'}),
            ("is a folder|holds something else", 2, {_LEX: '"{export}"'}),
            ("corpus.jsonl", 2, {_LEX: '"corpus.jsonl"'}),
            ("holds something else than Milvus Lite data", 2, {_LEX: '"milvus-lite:{export}"'}),
            ("ftp://", 2, {_LEX: '"ftp://somewhere"'}),
            ("backend.uri: must .*empty", 2, {_LEX: '""'}),
            ("unknown key backend.url; known here: .*uri", 2, {"uri =": "url ="}),
            ("unknown key backends; known here: backend", 2, {"[backend]": "[backends]"}),
            (
                "search.fusion: must be 'rrf' or 'scores', but 'mean' came",
                2,
                {"[source]": "[search]\nfusion = 'mean'\n[source]"},
            ),
            (
                "weights.lexical: must be .*greater than 0, but 0 came",
                2,
                {"[source]": "[search]\nweights = { lexical = 0 }\n[source]"},
            ),
            (
                "weights.lexical: must be a number, but True came",
                2,
                {"[source]": "[search]\nweights = { lexical = true }\n[source]"},
            ),
            (
                "weights.words: there is no such leg; there are dense, lexical",
                2,
                {"[source]": "[search]\nweights = { words = 1 }\n[source]"},
            ),
            (
                "search.of_document: must be 'max' or 'first', but 'mean' came",
                2,
                {"[source]": "[search]\nof_document = 'mean'\n[source]"},
            ),
            *(
                (told, 2, {"[source]": f"[chunks]\n{line}\n[source]"})
                for told, line in (
                    ("chunks.tokens: must be .*greater than or equal to 8, but 0 came", "tokens = 0"),
                    ("chunks.tokens: must be a whole number, but 'all' came", "tokens = 'all'"),
                    (
                        r".chunks. tokens = 100000, but the document tower of leg 'dense' reads \d+ tokens of a text",
                        "tokens = 100000",
                    ),
                    ("overlap = 9 is more than half of tokens = 16; give at most 8", "tokens = 16\noverlap = 9"),
                    (r".chunks. overlap = 5000 is more than half of the \d+ tokens of a chunk", "overlap = 5000"),
                    ("chunks.overlap: must be .*greater than or equal to 0, but -1 came", "overlap = -1"),
                    ("chunks.at: must be 'sentence' or 'token', but 'word' came", "at = 'word'"),
                    ("unknown key chunks.size; known here: at, overlap, tokens", "size = 64"),
                )
            ),
            ("chunks: must be a table, but 64 came", 2, {"[collection]": "chunks = 64\n[collection]"}),
            (
                "unknown engine 'tensorrt'; known: onnx, torch, triton",
                2,
                {"[source]": "[encoders.query]\nengine = 'tensorrt'\n[source]"},
            ),
            (
                "threads: must be .*greater than or equal to 0, but -1 came",
                2,
                {"[source]": "[encoders.query]\nthreads = -1\n[source]"},
            ),
            (
                "unknown key encoders.document.batch_size",
                2,
                {"[source]": "[encoders.document]\nbatch_size = 8\n[source]"},
            ),
            ("url: is missing", 2, {"[source]": "[encoders.document]\nengine = 'triton'\n[source]"}),
            (
                "grpc://host:port .*'localhost:8001' came",
                2,
                {"[source]": "[encoders.document]\nengine = 'triton'\nurl = 'localhost:8001'\n[source]"},
            ),
            (
                "127.0.0.1:9",
                4,
                {"[source]": "[encoders.document]\nengine = 'triton'\nurl = 'grpc://127.0.0.1:9'\n[source]"},
            ),
            (
                "is an export, and torch runs towers as they were trained",
                2,
                {"[source]": "[encoders.document]\nengine = 'torch'\n[source]"},
            ),
            ("is not valid TOML", 2, {'name = "docs"': "name = docs"}),
            ("encodes|sparse", 2, {_TOWER: '"{sparse}"'}),
        )
        for use in uses(
            "bartizan.toml",
            (
                "ingest",
                code,
                told,
                {"swap": swap, "name": " · ".join(f"{a} → {b}" for a, b in swap.items()), "files": {"empty/x": ""}},
            ),
        )
    ),
]
