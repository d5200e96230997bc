"""`bartizan train`: its words, and every kind of step of a recipe."""

from tests.trial.uses import Use, uses

_HEAD = 'name = "r"\ntower = "{toy}/tower"\n'
_DATA = 'data = { path = "{toy}/data" }\n'
_TRAIN = "steps = 2\nbatch_size = 4\nlearning_rate = 1e-3\n"
_CONTRASTIVE = f'[[steps]]\nkind = "contrastive"\n{_TRAIN}{_DATA}'
_DISTIL = (
    f'[[steps]]\nkind = "distil_query"\nlayers = [0]\n{_TRAIN}texts = [{{ kind = "queries", path = "{{toy}}/data" }}]\n'
)
_WHOLE = _HEAD + _CONTRASTIVE + _DISTIL


def _recipe(told: str, code: int = 2, text: str = _WHOLE, **swap: str) -> list[Use]:
    """The whole recipe, of which something stands otherwise."""
    for old, new in (pair for pair in zip(swap.get("old", "").split("§"), swap.get("new", "").split("§"), strict=True)):
        assert old in text, old
        text = text.replace(old, new, 1)
    name = f"{swap.get('old', '')} → {swap.get('new', '')}" if swap else text[-90:]
    return uses("recipe", ("train r.toml --out run", code, told, {"files": {"r.toml": text}, "name": name}))


def _r(old: str, new: str, told: str, code: int = 2) -> list[Use]:
    return _recipe(told, code, old=old, new=new)


def _step(text: str, told: str, code: int = 2) -> list[Use]:
    """A third step."""
    return uses(
        "recipe",
        ("train r.toml --out run", code, told, {"files": {"r.toml": f"{_WHOLE}[[steps]]\n{text}"}, "name": text}),
    )


USES = [
    *uses(
        "train",
        ("train scalingnote", 2, "names no data of its own; give --data BEIR_FOLDER"),
        ("train scallingnote --out run", 2, "scallingnote is neither a file nor one of the shipped recipes"),
        ("train . --out run", 2, "neither a file nor"),
        ("train corpus.jsonl --out run", 2, "corpus.jsonl is not valid TOML"),
        ("train bartizan.toml --out run", 2, "unknown key"),
        ("train scalingnote --out run", 2, "give --data BEIR_FOLDER"),
        ("train scalingnote --out run --tower {toy}/tower", 2, "--data BEIR_FOLDER"),
        ("train scalingnote --out run --tower nowhere --data {data}", 2, "--tower nowhere is not a folder"),
        ("train scalingnote --out run --tower {toy}/tower --data nowhere", 2, "--data nowhere is not a folder"),
        ("train tas_b-small --out run --tower {export} --data {toy}/data", 2, "export"),
        ("train tas_b-small --out run --tower {data} --data {toy}/data", 2, "is not a tower"),
        ("train scalingnote --out run --tower {toy}/tower --data {data}", 4, "the model hub cannot be reached"),
        (
            "train scalingnote --out corpus.jsonl --tower {toy}/tower --data {toy}/data",
            2,
            "corpus.jsonl exists and is not a run",
        ),
        ("train scalingnote --out {tower} --tower {toy}/tower --data {toy}/data", 2, "exists and is not a run"),
        ("train scalingnote --out . --tower {toy}/tower --data {toy}/data", 2, "exists and is not a run"),
        (
            "train scalingnote --out run --tower {toy}/tower --data {toy}/data --threads -1",
            2,
            r"must be greater than or equal to \d, but .-1. came",
        ),
        (
            "train scalingnote --out run --tower {toy}/tower --data {toy}/data --resume",
            4,
            "the model hub cannot be reached",
        ),
        ("train r.toml --out run", 2, "name: is missing", {"files": {"r.toml": ""}, "name": "an empty recipe"}),
        ("train r.toml --out run", 2, "steps", {"files": {"r.toml": _HEAD}, "name": "a recipe without steps"}),
    ),
    *_r('name = "r"', 'name = ""', "name: must"),
    *_r('name = "r"', "name = 3", "name: must be a text, but 3 came"),
    *_r('name = "r"', 'nam = "r"', "unknown key nam; known here"),
    *_r('name = "r"', 'name = "r"\nseed = -1', "seed: must be greater than or equal to 0, but -1 came"),
    *_r('name = "r"', 'name = "r"\nseed = "1"', "seed: must be a whole number, but '1' came"),
    *_r("{toy}/tower", "nowhere", "nowhere"),
    *_r("{toy}/tower", "{export}", "export"),
    *_r('tower = "{toy}/tower"', "tower = 3", "tower"),
    *_r('tower = "{toy}/tower"', "", "there is no tower to start from"),
    *_r('tower = "{toy}/tower"', 'tower = "{toy}/tower"\nquery_tower = "nowhere"', "nowhere"),
    *_r('tower = "{toy}/tower"', 'tower = "{toy}/tower"\nquery_tower = "{other}"', "space", 3),
    *_r('kind = "contrastive"', 'kind = "contrast"', "the kind 'contrast' is not known; there are"),
    *_r('kind = "contrastive"\n', "", "kind is missing"),
    *_r('kind = "contrastive"', 'kind = "contrastive"\nname = "start"', "each step needs a name of its own"),
    *_r('kind = "contrastive"', 'kind = "contrastive"\nname = "a b"', "name"),
    *_r(
        'kind = "contrastive"',
        'kind = "contrastive"\ndocument = "nowhere.document"',
        "no step before is called 'nowhere'",
    ),
    *_r(
        'kind = "contrastive"',
        'kind = "contrastive"\nquery = "start.teacher"',
        "hold only document, query|hold only query, document",
    ),
    *_r("steps = 2", "steps = 0", "steps: must be .*greater than or equal to 1, but 0 came"),
    *_r("steps = 2", "steps = 2\nepochs = 1", "give either steps or epochs"),
    *_r("steps = 2\n", "", "give either steps or epochs"),
    *_r("steps = 2", "epochs = -1", "epochs: must be .*greater than 0"),
    *_r("batch_size = 4", "batch_size = 0", "batch_size: must be .*but 0 came"),
    *_r("batch_size = 4", "batch_size = 1", "batch_size = 1 without negatives: .* raise batch_size"),
    *_r("batch_size = 4", "batch_size = 100000", "batch_size"),
    *_r("batch_size = 4", "batch_size = 4.5", "batch_size: must be a whole number"),
    *_r("batch_size = 4", "batchsize = 4", "unknown key .*batchsize; known here: .*batch_size"),
    *_r("learning_rate = 1e-3", 'learning_rate = "2e-5"', "learning_rate: must be a number, but '2e-5' came"),
    *_r("learning_rate = 1e-3", "learning_rate = 0", "learning_rate: must be .*greater than 0"),
    *_r("learning_rate = 1e-3", "learning_rate = nan", "learning_rate"),
    *_r("learning_rate = 1e-3\n", "", "learning_rate: is missing"),
    *_r("learning_rate = 1e-3", "learning_rate = 1e30", "the loss is|no checkpoint", 1),
    *_r("learning_rate = 1e-3", "learning_rate = 1e-3\nwarmup = 2", "warmup: must be .*less than or equal to 1"),
    *_r(
        "learning_rate = 1e-3",
        'learning_rate = 1e-3\nprecision = "fp16"',
        "precision: must be 'fp32' or 'bf16', but 'fp16' came",
    ),
    *_r("learning_rate = 1e-3", "learning_rate = 1e-3\nmax_tokens = 1", "max_tokens"),
    *_r("learning_rate = 1e-3", "learning_rate = 1e-3\nmax_tokens = 0", "max_tokens"),
    *_r("learning_rate = 1e-3", "learning_rate = 1e-3\nclip = 0", "clip"),
    *_r("learning_rate = 1e-3", "learning_rate = 1e-3\nlora = { rank = 0, alpha = 1 }", "rank"),
    *_r("learning_rate = 1e-3", "learning_rate = 1e-3\nlora = { rank = 2 }", "alpha: is missing"),
    *_r("learning_rate = 1e-3", 'learning_rate = 1e-3\nlora = { rank = 2, alpha = 1, targets = ["nosuch"] }', "nosuch"),
    *_r("learning_rate = 1e-3", "learning_rate = 1e-3\ndropout = 1", "dropout: must be true or false"),
    *_r("learning_rate = 1e-3", "learning_rate = 1e-3\nloss = { temperature = 0 }", "temperature"),
    *_r(
        "learning_rate = 1e-3",
        "learning_rate = 1e-3\nloss = { temprature = 1 }",
        "unknown key .*temprature; known here: .*temperature",
    ),
    *_r('data = { path = "{toy}/data" }', "data = 3", "data.judged: must be a table"),
    *_r('data = { path = "{toy}/data" }\n', "", "data: is missing"),
    *_r('data = { path = "{toy}/data" }', 'data = { path = "nowhere" }', "nowhere, which is not there"),
    *_r('data = { path = "{toy}/data" }', 'data = { path = "{toy}/data", split = "dev" }', "has no split 'dev'"),
    *_r(
        'data = { path = "{toy}/data" }',
        'data = { path = "{toy}/data", sampler = "random" }',
        "sampler: must be 'pairs' or 'queries'",
    ),
    *_r('data = { path = "{toy}/data" }', 'data = { path = "{toy}/data", negatives = "nowhere" }', "nowhere"),
    *_r(
        'data = { path = "{toy}/data" }',
        'data = { path = "{toy}/data", negatives = "bartizan.toml" }',
        r"bartizan.toml:\d",
    ),
    *_r('texts = [{ kind = "queries", path = "{toy}/data" }]', "texts = []", "texts: must have at least 1 item"),
    *_r('texts = [{ kind = "queries", path = "{toy}/data" }]', 'texts = ["a"]', "texts.1"),
    *_r(
        '{ kind = "queries", path = "{toy}/data" }',
        '{ kind = "query", path = "{toy}/data" }',
        "the kind 'query' is not known",
    ),
    *_r('{ kind = "queries", path = "{toy}/data" }', '{ kind = "lines", path = "{toy}/data" }', "cannot read"),
    *_r(
        '{ kind = "queries", path = "{toy}/data" }',
        '{ kind = "corpus_sentences", path = "{toy}/data", count = 9, min_words = 9, max_words = 3 }',
        "min_words = 9 is above max_words = 3",
    ),
    *_r(
        'kind = "distil_query"\nlayers = [0]',
        'kind = "distil_query"\nlayers = [1, 4, 9]',
        "step 2 .'distil_query'.: .*layers",
    ),
    *_r('kind = "distil_query"\nlayers = [0]', 'kind = "distil_query"\nlayers = [-1]', "layers"),
    *_r('kind = "distil_query"\nlayers = [0]', 'kind = "distil_query"\nlayers = []', "layers"),
    *_r('kind = "distil_query"\nlayers = [0]', 'kind = "distil_query"\nlayers = [1, 0]', "layers"),
    *_r('kind = "distil_query"\nlayers = [0]', 'kind = "distil_query"\nstudent = "nowhere"', "nowhere"),
    *_r(
        'kind = "distil_query"\nlayers = [0]',
        'kind = "distil_query"\nstudent = "{export}"',
        "an export cannot be trained",
    ),
    *_r('kind = "distil_query"', 'kind = "distil_query"\nloss = { w_cos = 0.0 }', "are all 0"),
    *_step('kind = "mine"\npath = "nowhere"\n', "nowhere"),
    *_step('kind = "mine"\npath = "{toy}/data"\ndepth = 0\n', "depth"),
    *_step(f'kind = "refine"\n{_TRAIN}', "data: is missing"),
    *_step(f'kind = "adapt"\n{_TRAIN}', "texts: is missing"),
    *_step(f'kind = "splade"\n{_TRAIN}{_DATA}', "sparse"),
    *_step('kind = "score"\n', "is missing"),
    *_step('kind = "cluster"\nclusters = 0\n', "clusters"),
    *_step(f'kind = "tas_balanced"\n{_TRAIN}', "is missing"),
    *_step(f'kind = "cross_encoder"\n{_TRAIN}', "is missing"),
    *_step(f'kind = "late_interaction"\n{_TRAIN}', "is missing"),
]
