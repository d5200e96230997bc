"""The demo's steps: from this Python's documentation to answers on the terminal."""

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from bartizan_connector.base.console import out
from bartizan_connector.space.spec import TowerSpec
from bartizan_training.demo import corpus as corpora
from bartizan_training.demo import ending, lessons, recipes
from bartizan_training.demo.corpus import Corpus
from bartizan_training.demo.layout import Layout
from bartizan_training.demo.story import Story

QUERIES = (
    "pause the program for a while",
    "compare two files",
    "remember the results of a slow function",
    "who is logged in",
)
"""Asked at the end; the first three are held-out or not as their hash says, and no tower was trained on the last."""
MAX_TOKENS = 64
"""Docstrings say what matters first: plain MiniLM finds more with 64 tokens than with 256, which are half as many again
to read (docs/demo.md)."""
QUICK_DOCUMENTS = 900


@dataclass(frozen=True, slots=True, kw_only=True)
class Demo:
    """What the user chose."""

    out: Path
    seed: int
    quick: bool
    from_scratch: bool

    def run(self) -> None:
        """Tell the whole story."""
        story, layout = Story(), Layout(self.out)
        if layout.clear({"seed": self.seed, "quick": self.quick, "from_scratch": self.from_scratch}):
            story.remark(f"replacing what an earlier demo made in {self.out}")
        corpus = self._corpus(story, layout)
        self._start(story, layout, corpus)
        self._train(story, layout)
        self._export(story, layout)
        self._ingest(story, layout)
        self._judge(story, layout, corpus)
        self._search(story, layout)
        ending.tell(story, layout)

    def _corpus(self, story: Story, layout: Layout) -> Corpus:
        story.step("The corpus: what this Python says about its own standard library")
        corpus = corpora.build(documents=QUICK_DOCUMENTS if self.quick else None)
        corpus.write(layout.corpus)
        lessons.write(corpus, layout.lessons)
        count = {split: len(corpus.split(split)) for split in ("train", "dev", "test")}
        story.say(
            f"{len(corpus.documents):,} documents, and {len(corpus.queries)} queries written and judged by hand: "
            f"{count['test']} held out for the test, {count['dev']} to choose settings by, "
            f"{count['train']} to learn from"
        )
        if corpus.missing:
            story.say(f"(this Python has no {', '.join(corpus.missing)})", style="dim")
        return corpus

    def _start(self, story: Story, layout: Layout, corpus: Corpus) -> None:
        if self.from_scratch:
            from bartizan_training.demo import scratch

            story.step("A tower to start from: a tiny encoder that has learned nothing yet")
            texts = (f"{document['title']} {document['text']}" for document in corpus.documents)
            scratch.write(texts, layout.scratch, seed=self.seed)
            story.run("tower", "import", layout.scratch, "--pooling", "mean", "--out", layout.start)
        else:
            story.step("A tower to start from: MiniLM, six layers")
            story.run("tower", "import", "minilm", "--max-tokens", str(MAX_TOKENS), "--out", layout.start)

    def _train(self, story: Story, layout: Layout) -> None:
        story.step("Train the document tower, then distil a small query tower out of it")
        layout.recipe.write_text(
            recipes.text(seed=self.seed, quick=self.quick, from_scratch=self.from_scratch), encoding="utf-8"
        )
        # For a tiny model a second thread would only wait for the first.
        story.run("train", layout.recipe, "--out", layout.run, *(("--threads", "1") if self.from_scratch else ()))

    def _export(self, story: Story, layout: Layout) -> None:
        story.step("Export both to ONNX; the query tower in int8")
        story.run("export", layout.run / "towers/document", "--out", layout.document)
        story.run("export", layout.run / "towers/query", "--precision", "int8", "--out", layout.query)
        story.say(f"one space for both: {TowerSpec.read(layout.query).space_id}")

    def _ingest(self, story: Story, layout: Layout) -> None:
        story.step("Ingest the corpus: a Milvus Lite file and a word index")
        config = files("bartizan_training").joinpath("demo/bartizan.toml").read_text(encoding="utf-8")
        layout.config.write_text(config, encoding="utf-8")
        story.run("ingest", layout.config)

    def _judge(self, story: Story, layout: Layout, corpus: Corpus) -> None:
        story.step("Judge both query towers on the held-out queries")
        teacher, distilled = layout.result("teacher"), layout.result("distilled")
        judge = ("eval", layout.corpus, "--tower", layout.document, "--keep", layout.vectors)
        story.run(*judge, "--out", teacher)
        story.run(*judge, "--query-tower", layout.query, "--baseline", teacher, "--out", distilled)
        out.print(ending.figures(layout, [query.text for query in corpus.split("test")]))

    def _search(self, story: Story, layout: Layout) -> None:
        story.step("Ask")
        for query in QUERIES[: 2 if self.quick else None]:
            story.run("search", query, "--config", layout.config, "-k", "3")
