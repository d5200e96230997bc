"""Topics: the queries of a training set in clusters, by where a query tower puts them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from bartizan_connector.base.errors import Stop, WrongUse, missing_extra, require_installed
from bartizan_connector.space.vectors import Floats
from bartizan_encoders.tower import Tower
from bartizan_training.artefacts import Kind
from bartizan_training.data.digests import digests_of
from bartizan_training.data.ragged import Indices
from bartizan_training.data.triple_tables import TripleSource
from bartizan_training.data.triples import identity_of, read_triples
from bartizan_training.frozen import Frozen, freeze
from bartizan_training.settings import Positive
from bartizan_training.step import MakingStep, Place, Reference, Taken, under_key
from bartizan_training.towers import PlannedTower

_QUERIES, _CLUSTERS = "queries.npy", "clusters.npy"


class Cluster(MakingStep):
    """Its table in a recipe."""

    kind: Literal["cluster"]
    """`cluster`"""
    query: Reference | None = None
    """The query tower whose vectors are clustered: `step.query`; none: the newest."""
    data: TripleSource
    """Triples; their queries are clustered."""
    clusters: Positive = 2000
    """How many; results hardly depend on it while one holds more queries than a batch."""
    iterations: Positive = 25
    """Rounds of k-means."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic inside the tower."""

    gives: ClassVar[Kind] = "clusters"
    takes: ClassVar[Mapping[str, Kind]] = {"query": "towers"}

    def plan(self, name: str, towers: Mapping[str, PlannedTower]) -> Mapping[str, PlannedTower]:
        """Gives no towers."""
        towers["query"].spec.role("query")
        return {}

    def check_data(self, seed: tuple[int, int], processes: int) -> None:
        """At least as many queries as clusters."""
        require_installed(("faiss",), "local")
        with under_key("data"):
            queries = len(read_triples(self.data).queries)
        if queries < self.clusters:
            raise WrongUse(f"clusters = {self.clusters} is more than there are queries ({queries}): lower it")

    def made_from(self) -> dict[str, Any]:
        """The settings, and what the data is."""
        return super().made_from() | {"data_id": identity_of(self.data)}

    def make(self, taken: Taken, place: Place, folder: Path) -> None:
        """Encode every query, and cluster the vectors."""
        texts = read_triples(self.data).queries
        tower = Tower.load(taken["query"])
        vectors = freeze(Frozen(tower=tower, role="query", texts=texts, precision=self.precision), place)
        if place.accelerator.is_main_process:
            seed = int(np.random.SeedSequence(place.seed).generate_state(1)[0]) & 0x7FFFFFFF
            clusters = k_means(vectors.values, self.clusters, iterations=self.iterations, seed=seed)
            digests = digests_of(texts)
            order = np.argsort(digests)
            np.save(folder / _QUERIES, digests[order])
            np.save(folder / _CLUSTERS, clusters[order])


def k_means(vectors: Floats, clusters: int, *, iterations: int, seed: int) -> Indices:
    """The cluster of each vector."""
    try:
        import faiss
    except ImportError as error:
        raise missing_extra("faiss-cpu", "local") from error
    points = np.ascontiguousarray(vectors, dtype=np.float32)
    means = faiss.Kmeans(
        points.shape[1], clusters, niter=iterations, seed=seed, min_points_per_centroid=1, verbose=False
    )
    means.train(points)
    _, nearest = means.index.search(points, 1)
    found: Indices = nearest[:, 0].astype(np.int64)
    return found


def read_clusters(folder: Path, queries: tuple[str, ...]) -> Indices:
    """The cluster of each of these queries; one that was never clustered is refused."""
    try:
        known, clusters = np.load(folder / _QUERIES), np.load(folder / _CLUSTERS)
    except (OSError, ValueError) as error:
        raise Stop(f"the clusters in {folder} cannot be read: {error}; train again into another --out") from error
    wanted = digests_of(queries)
    places = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
    missing = np.flatnonzero(known[places] != wanted)
    if missing.size:
        raise WrongUse(
            f"{missing.size} of {len(queries)} queries are in no cluster, the first: {queries[missing[0]][:80]!r}; "
            "cluster the same data"
        )
    found: Indices = clusters[places]
    return found
