"""The kinds of index that a leg can have, each with the limits that Milvus documents for its parameters.

A metric is no parameter: every kind here takes the inner product, and no other is ever asked for. Towers that mean the
cosine normalise their vectors, over which the two are the same; so those servers serve too whose GPU indexes know no
cosine.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

Value = int | float | bool | str
GOAL = 0.9
"""The recall below which an index is broadened, and then replaced by one of another kind."""
MAX_DIM = 32_768
_INT = 2**31 - 1
_MAX_RESULTS = 16_384
_MAX_LISTS = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """What one parameter may be: a number between two, one of several words, or true or false."""

    least: float = 0
    most: float = _INT
    whole: bool = True
    below: bool = False
    """Whether `most` itself is too much."""
    words: tuple[str, ...] = ()
    numbers: tuple[int, ...] = ()
    truth: bool = False

    def fault(self, value: object) -> str | None:
        """What it must be, where this value is not that."""
        if self.words:
            return None if value in self.words else f"must be one of {', '.join(self.words)}"
        if self.truth:
            return None if isinstance(value, bool) else "must be true or false"
        if self.numbers:
            ok = isinstance(value, int) and not isinstance(value, bool) and value in self.numbers
            return None if ok else f"must be one of {', '.join(map(str, self.numbers))}"
        kinds = int if self.whole else int | float
        if isinstance(value, bool) or not isinstance(value, kinds):
            return f"must be a {'whole ' if self.whole else ''}number {self._range}"
        inside = self.least <= value < self.most if self.below else self.least <= value <= self.most
        return None if inside else f"must be {self._range}"

    @property
    def _range(self) -> str:
        if self.most == _INT:
            return f"of at least {self.least:g}"
        return f"from {self.least:g} to {'below ' if self.below else ''}{self.most:g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of index: how Milvus calls it, what it takes, where it can be."""

    name: str
    leg: Literal["dense", "sparse"] = "dense"
    build: Mapping[str, Limit] = field(default_factory=dict)
    search: Mapping[str, Limit] = field(default_factory=dict)
    breadth: str = ""
    """The parameter of a search that finds more when it is raised; none: it is exact, or nothing can be raised."""
    most_results: int = _MAX_RESULTS
    in_lite: bool = False
    """Whether Milvus Lite builds it. It accepts every other name too, and compares all rows then."""
    is_exact: bool = False
    may_never_end: bool = False
    """Whether there are servers that accept it and then never build it: those without a GPU, or without its files."""
    keeps_vectors: bool = True
    """Whether the vectors can be read out of it; else a server reads them from where it stores them."""


_NLIST = Limit(least=1, most=_MAX_LISTS)
_RATIO = Limit(least=0, most=1, whole=False, below=True)
_TRUTH = Limit(truth=True)
_IVF_SEARCH = {"nprobe": Limit(least=1, most=_MAX_LISTS)}
_REFINE = Limit(least=1, whole=False)
_PIECES = Limit(least=1, most=MAX_DIM)
_ALGORITHMS = ("TAAT_NAIVE", "DAAT_WAND", "DAAT_MAXSCORE", "BLOCK_MAX_MAXSCORE", "BLOCK_MAX_WAND", "SINDI")

KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "flat": Kind(name="FLAT", in_lite=True, is_exact=True),
        "hnsw": Kind(
            name="HNSW",
            build={"M": Limit(least=2, most=2048), "efConstruction": Limit(least=1)},
            search={"ef": Limit(least=1, most=32_768)},
            breadth="ef",
            in_lite=True,
        ),
        "ivf_flat": Kind(name="IVF_FLAT", build={"nlist": _NLIST}, search=_IVF_SEARCH, breadth="nprobe", in_lite=True),
        "ivf_sq8": Kind(
            name="IVF_SQ8",
            build={"nlist": _NLIST},
            search=_IVF_SEARCH,
            breadth="nprobe",
            in_lite=True,
            keeps_vectors=False,
        ),
        "ivf_pq": Kind(
            name="IVF_PQ",
            build={"nlist": _NLIST, "m": _PIECES, "nbits": Limit(least=1, most=16)},
            search=_IVF_SEARCH,
            breadth="nprobe",
            keeps_vectors=False,
        ),
        "scann": Kind(
            name="SCANN",
            build={"nlist": _NLIST, "with_raw_data": _TRUTH},
            search=_IVF_SEARCH | {"reorder_k": Limit(least=1)},
            breadth="nprobe",
        ),
        "diskann": Kind(
            name="DISKANN",
            search={"search_list": Limit(least=1, most=65_535)},
            breadth="search_list",
            may_never_end=True,
        ),
        "gpu_cagra": Kind(
            name="GPU_CAGRA",
            build={
                "intermediate_graph_degree": Limit(least=2),
                "graph_degree": Limit(least=1),
                "build_algo": Limit(words=("IVF_PQ", "NN_DESCENT")),
                "cache_dataset_on_device": _TRUTH,
                "adapt_for_cpu": _TRUTH,
                "nn_descent_niter": Limit(least=1),
            },
            search={
                "itopk_size": Limit(least=1),
                "search_width": Limit(least=1),
                "team_size": Limit(numbers=(0, 2, 4, 8, 16, 32)),
                "min_iterations": Limit(),
                "max_iterations": Limit(),
                "refine_ratio": _REFINE,
                "ef": Limit(least=1),
            },
            breadth="itopk_size",
            most_results=1024,
            may_never_end=True,
        ),
        "gpu_ivf_flat": Kind(
            name="GPU_IVF_FLAT",
            build={"nlist": _NLIST, "cache_dataset_on_device": _TRUTH},
            search=_IVF_SEARCH | {"refine_ratio": _REFINE},
            breadth="nprobe",
            most_results=2048,
            may_never_end=True,
        ),
        "gpu_ivf_pq": Kind(
            name="GPU_IVF_PQ",
            build={
                "nlist": _NLIST,
                "m": Limit(least=0, most=MAX_DIM),
                "nbits": Limit(least=4, most=8),
                "cache_dataset_on_device": _TRUTH,
            },
            search=_IVF_SEARCH | {"refine_ratio": _REFINE},
            breadth="nprobe",
            most_results=1024,
            may_never_end=True,
            keeps_vectors=False,
        ),
        "gpu_brute_force": Kind(name="GPU_BRUTE_FORCE", is_exact=True, may_never_end=True),
        "autoindex": Kind(name="AUTOINDEX", in_lite=True),
        "sparse_inverted_index": Kind(
            name="SPARSE_INVERTED_INDEX",
            leg="sparse",
            build={"inverted_index_algo": Limit(words=_ALGORITHMS)},
            search={"drop_ratio_search": _RATIO},
            in_lite=True,
        ),
        "sparse_wand": Kind(name="SPARSE_WAND", leg="sparse", search={"drop_ratio_search": _RATIO}),
    }
)
AUTO = "auto"
"""No kind of its own: the store chooses."""


def keeps_vectors(kind: Kind, build: Mapping[str, Value]) -> bool:
    """Whether the vectors can be read out of an index of that kind that was built so."""
    return kind.keeps_vectors and str(build.get("with_raw_data", True)).lower() == "true"


def kind_named(name: str) -> Kind | None:
    """The kind that Milvus calls so; None: one that nobody here asks for."""
    return KINDS.get(name.lower())
