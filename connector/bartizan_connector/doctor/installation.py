"""The installation: Python, Bartizan, its extras, and packages that overwrite each other."""

import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution, requires, version
from importlib.util import find_spec

from packaging.requirements import Requirement

from bartizan_connector.doctor.findings import Finding

DISTRIBUTION = "bartizan-search"
EXTRAS = ("local", "milvus", "stream", "serve", "triton", "train", "data", "gpu")

CLASHES = {"faiss-gpu": "faiss-cpu", "faiss-cpu": "faiss-gpu", "milvus-lite": "faiss-gpu"}
"""Package → the one it must not share an environment with (docs/decisions/004); milvus-lite brings faiss-cpu."""


def examine() -> Iterator[Finding]:
    """What is installed here, and what is not."""
    python = ".".join(map(str, sys.version_info[:3]))
    yield Finding(area="python", status="ok", what=f"{python} at {sys.executable}")
    yield Finding(area="bartizan", status="ok", what=version(DISTRIBUTION))
    for extra in EXTRAS:
        missing = list(_missing(extra))
        if missing:
            fix = _advice(extra, missing)
            yield Finding(area=f"extra {extra}", status="note", what=f"without {', '.join(missing)}", way_out=fix)
        else:
            yield Finding(area=f"extra {extra}", status="ok", what="complete")
    yield from _faiss()


def _advice(extra: str, missing: list[str]) -> str:
    """How to have the extra; what would bring the other build of faiss is not advised for this environment."""
    fix = f"pip install 'bartizan-search[{extra}]'"
    for package in missing:
        if package in CLASHES and _installed(CLASHES[package]):
            return f"if you need it, make another environment: {CLASHES[package]} is in this one. There: {fix}"
    return f"if you need it: {fix}"


def _missing(extra: str) -> Iterator[str]:
    """Packages that the extra needs and that are not installed."""
    for line in requires(DISTRIBUTION) or ():
        requirement = Requirement(line)
        if requirement.marker is None or not requirement.marker.evaluate({"extra": extra}):
            continue
        if requirement.name == DISTRIBUTION:
            for inner in requirement.extras:
                yield from _missing(inner)
        elif not _installed(requirement.name):
            yield requirement.name


def _faiss() -> Iterator[Finding]:
    """faiss-cpu and faiss-gpu own the same folder: the one installed last wins, silently."""
    if _installed("faiss-cpu") and _installed("faiss-gpu"):
        fix = "pip uninstall faiss-cpu faiss-gpu, then pip install --force-reinstall the one this environment is for"
        what = "faiss-cpu and faiss-gpu are both installed and overwrite each other"
        yield Finding(area="faiss", status="problem", what=what, way_out=fix, exit_code=1)
    elif (_installed("faiss-cpu") or _installed("faiss-gpu")) and find_spec("faiss") is None:
        fix = "pip install --force-reinstall --no-deps faiss-cpu (or faiss-gpu)"
        what = "the package is registered, but its folder is gone"
        yield Finding(area="faiss", status="problem", what=what, way_out=fix, exit_code=1)


def _installed(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True
