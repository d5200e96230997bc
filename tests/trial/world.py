"""What the uses are about: towers, exports, judged data, a repository, an index; made once, never written to."""

import hashlib
import json
import shutil
from pathlib import Path
from types import MappingProxyType

from bartizan_connector.commands.ingest import ingest_all
from bartizan_connector.config import Config
from bartizan_connector.encode.export import Export
from bartizan_connector.stream.sources import open_source
from bartizan_triton.export import export_tower
from bartizan_triton.repository.serving import Serving
from bartizan_triton.repository.write import add_version
from tests.encoders import tiny
from tests.judged import WORDS, write_collection
from tests.training import toy

CONFIG = """
[collection]
name = "docs"
fields = [{{ name = "year", type = "int", default = 0 }}, {{ name = "lang", type = "string", default = "en" }}]

[spaces.dense]
document_tower = "{export}"

[backend]
uri = "index.bartizan"
lexical = true

[source]
path = "corpus.jsonl"
"""


def make(root: Path) -> MappingProxyType[str, Path]:
    """Every place by the name that uses call it by."""
    places = {name: root / name for name in ("tower", "other", "export", "other_export", "sparse", "query", "data")}
    tower = tiny.tower(dim=8)
    tower.save(places["tower"])
    tiny.saved(places["other"], dim=8, seed=1)
    tiny.sparse_tower().save(places["sparse"])
    query = tower.cut([0, 1])
    query.spec = query.spec.aligned_to(tower.spec)
    query.save(places["query"])
    export_tower(places["tower"], places["export"])
    export_tower(places["other"], places["other_export"])
    texts = {f"d{number}": f"the {WORDS[number]} of one tower" for number in range(8)}
    queries = {f"q{number}": f"two {WORDS[number]}" for number in range(8)}
    qrels = {f"q{number}": {f"d{number}": 1} for number in range(8)}
    write_collection(places["data"], texts, queries, test=qrels, train=qrels)
    places["repo"] = root / "repo"
    add_version(places["repo"], Export.read(places["export"]), Serving(backend="python"), name="tiny", text=False)
    places["toy"] = root / "toy"
    toy.tower(places["toy"] / "tower")
    toy.collection(places["toy"] / "data", queries=40)
    places["home"] = root / "home"
    places["home"].mkdir()
    (places["home"] / "bartizan.toml").write_text(CONFIG.format(export=places["export"]), encoding="utf-8")
    lines = [json.dumps({"_id": id, "title": id, "text": text, "year": 2000}) for id, text in texts.items()]
    (places["home"] / "corpus.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    config = Config.load(places["home"] / "bartizan.toml", {})
    ingest_all(config, open_source(config))
    return MappingProxyType(places)


def home(places: MappingProxyType[str, Path], folder: Path) -> None:
    """A user's folder: a configuration, its corpus, and the index that was filled from it."""
    shutil.copytree(places["home"], folder, dirs_exist_ok=True)


def digest(places: MappingProxyType[str, Path]) -> str:
    """Everything that no use may change."""
    facts = hashlib.sha256()
    for name in sorted(places):
        for path in sorted(places[name].rglob("*")):
            if path.is_file():
                facts.update(f"{path}\0".encode() + path.read_bytes())
    return facts.hexdigest()
