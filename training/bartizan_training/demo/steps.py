"""The demo's steps: from this Python's documentation to answers on the terminal."""

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from bartizan_connector.base.console import out
from bartizan_connector.space.spec import TowerSpec
from bartizan_training.demo import corpus as corpora
from bartizan_training.demo import recipes, summary, training_data
from bartizan_training.demo.corpus import Corpus
from bartizan_training.demo.layout import Layout
from bartizan_training.demo.shell import Shell

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
    threads: int = 0
    """That train; 0: as many as cores are idle."""

    def run(self) -> None:
        """From the corpus to answers."""
        shell, layout = Shell(), Layout(self.out)
        if layout.clear({"seed": self.seed, "quick": self.quick, "from_scratch": self.from_scratch}):
            shell.remark(f"replacing what an earlier demo made in {self.out}")
        corpus = self._corpus(shell, layout)
        self._start(shell, layout, corpus)
        self._train(shell, layout)
        self._export(shell, layout)
        self._ingest(shell, layout)
        self._judge(shell, layout, corpus)
        self._search(shell, layout)
        summary.show_next(shell, layout)

    def _corpus(self, shell: Shell, layout: Layout) -> Corpus:
        shell.step("The corpus: what this Python says about its own standard library")
        corpus = corpora.build(documents=QUICK_DOCUMENTS if self.quick else None)
        corpus.write(layout.corpus)
        training_data.write(corpus, layout.training_data)
        count = {split: len(corpus.split(split)) for split in ("train", "dev", "test")}
        shell.say(
            f"{len(corpus.documents):,} documents, and {len(corpus.queries)} queries written and judged by hand: "
            f"{count['test']} held out for the test, {count['dev']} to choose settings by, "
            f"{count['train']} to learn from"
        )
        if corpus.missing:
            shell.say(f"(this Python has no {', '.join(corpus.missing)})", style="dim")
        return corpus

    def _start(self, shell: Shell, layout: Layout, corpus: Corpus) -> None:
        if self.from_scratch:
            from bartizan_training.demo import untrained

            shell.step("A tower to start from: a tiny encoder that has learned nothing yet")
            texts = (f"{document['title']} {document['text']}" for document in corpus.documents)
            untrained.write(texts, layout.untrained, seed=self.seed)
            shell.run("tower", "import", layout.untrained, "--pooling", "mean", "--out", layout.start)
        else:
            shell.step("A tower to start from: MiniLM, six layers")
            shell.run("tower", "import", "minilm", "--max-tokens", str(MAX_TOKENS), "--out", layout.start)

    def _train(self, shell: Shell, layout: Layout) -> None:
        shell.step("Train the document tower, then distil a small query tower out of it")
        layout.recipe.write_text(
            recipes.text(seed=self.seed, quick=self.quick, from_scratch=self.from_scratch), encoding="utf-8"
        )
        # For a tiny model a second thread would only wait for the first.
        threads = self.threads or int(self.from_scratch)
        shell.run("train", layout.recipe, "--out", layout.run, *(("--threads", str(threads)) if threads else ()))

    def _export(self, shell: Shell, layout: Layout) -> None:
        shell.step("Export both to ONNX; the query tower in int8")
        shell.run("export", layout.run / "towers/document", "--out", layout.document)
        shell.run("export", layout.run / "towers/query", "--precision", "int8", "--out", layout.query)
        shell.say(f"one space for both: {TowerSpec.read(layout.query).space_id}")

    def _ingest(self, shell: Shell, layout: Layout) -> None:
        shell.step("Ingest the corpus: a Milvus Lite file and a word index")
        config = files("bartizan_training").joinpath("demo/bartizan.toml").read_text(encoding="utf-8")
        layout.config.write_text(config, encoding="utf-8")
        shell.run("ingest", layout.config)

    def _judge(self, shell: Shell, layout: Layout, corpus: Corpus) -> None:
        shell.step("Judge both query towers on the held-out queries")
        teacher, distilled = layout.result("teacher"), layout.result("distilled")
        judge = ("eval", layout.corpus, "--tower", layout.document, "--keep", layout.vectors)
        shell.run(*judge, "--out", teacher)
        shell.run(*judge, "--query-tower", layout.query, "--baseline", teacher, "--out", distilled)
        out.print(summary.figures(layout, [query.text for query in corpus.split("test")]))

    def _search(self, shell: Shell, layout: Layout) -> None:
        shell.step("Ask")
        for query in QUERIES[: 2 if self.quick else None]:
            shell.run("search", query, "--config", layout.config, "-k", "3")
