"""`bartizan tower`: import a published model as a tower, cut its vectors, and show what a tower is."""

import json
import math
from pathlib import Path
from typing import Annotated, Any

import typer

from bartizan_connector.base.aside import refuse_foreign
from bartizan_connector.base.console import err, out
from bartizan_connector.base.errors import Stop, WrongUse, interruptible, require_installed
from bartizan_connector.space.replacing import refuse_another
from bartizan_connector.space.spec import SPEC_FILE, TowerSpec
from bartizan_encoders import NEEDED

_WEIGHTS_FILE = "model.safetensors"
_MOST_LAYERS = 10_000
"""No model has so many; a range is written out in memory."""

tower = typer.Typer(no_args_is_help=True, help="Import a published model as a tower; cut its vectors; show it.")


_Attention = Annotated[
    str | None, typer.Option(help="published, or bidirectional: a decoder's tokens see all of the text.")
]
_Layers = Annotated[str | None, typer.Option(metavar="0-5,11", help="Keep only these layers, counted from 0.")]
_Dim = Annotated[int | None, typer.Option(min=1, help="A new linear head to so many dimensions (GTR: 768), to train.")]
_Seed = Annotated[int, typer.Option(min=0, help="For the new head.")]


@tower.command("import")
@interruptible("nothing was written; run it again")
def import_(
    source: Annotated[
        str,
        typer.Argument(
            metavar="NAME_OR_DIR", help="`minilm`, `smollm2`, a model's folder, a GGUF file, or a name on the hub."
        ),
    ],
    out_folder: Annotated[Path, typer.Option("--out", metavar="TOWER", help="The folder to write.")],
    kind: Annotated[
        str | None, typer.Option(help="dense, or sparse over the language model's head; default: as published.")
    ] = None,
    pooling: Annotated[str | None, typer.Option(help="cls, mean, last, max or sum; default: as published.")] = None,
    similarity: Annotated[str | None, typer.Option(help="cosine or dot; default: as published, else cosine.")] = None,
    max_tokens: Annotated[
        int | None, typer.Option(min=1, help="Longest text in tokens; default: as published.")
    ] = None,
    query_prefix: Annotated[str | None, typer.Option(help="Put before each query; default: as published.")] = None,
    document_prefix: Annotated[
        str | None, typer.Option(help="Put before each document; default: as published.")
    ] = None,
    special_tokens: Annotated[
        str | None, typer.Option(help="template, or none: the bare text, without a first token `<s>`.")
    ] = None,
    layers: _Layers = None,
    dim: _Dim = None,
    seed: _Seed = 0,
    attention: _Attention = None,
    echo: Annotated[bool, typer.Option("--echo", help="Read each text twice, and pool over the second copy.")] = False,
    precision: Annotated[str, typer.Option(help="How weights are kept: fp32, or bf16 in half the memory.")] = "fp32",
    name: Annotated[str | None, typer.Option(help="What to call the tower; default: the model's name.")] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Write over another tower that stands there.")] = False,
) -> None:
    """Turn a Hugging Face or sentence-transformers model into a tower."""
    for marker in (_WEIGHTS_FILE, SPEC_FILE):  # the weights alone are a published model's
        refuse_foreign(out_folder, marker=marker)
    require_installed(NEEDED, "train")
    from bartizan_encoders.importing import Wishes, import_tower

    wishes = Wishes(
        name=name,
        kind=_one_of("--kind", kind, ("dense", "sparse")),
        pooling=_one_of("--pooling", pooling, ("cls", "mean", "last", "max", "sum")),
        similarity=_one_of("--similarity", similarity, ("cosine", "dot")),
        max_tokens=max_tokens,
        query_prefix=query_prefix,
        document_prefix=document_prefix,
        special_tokens=_one_of("--special-tokens", special_tokens, ("template", "none")),
        attention=_one_of("--attention", attention, ("published", "bidirectional")),
        echo=echo,
        layers=None if layers is None else _numbers("--layers", layers),
        precision=_one_of("--precision", precision, ("fp32", "bf16")),
        dim=dim,
        seed=seed,
    )
    err.print(f"importing {source} …", markup=False)
    imported = import_tower(source, wishes)
    if not replace:
        refuse_another(out_folder, imported.spec)
    _describe(out_folder, imported.save(out_folder))


@tower.command("cut")
def cut(
    folder: Annotated[Path, typer.Argument(metavar="TOWER", help="A dense tower.")],
    dim: Annotated[int, typer.Option(min=1, help="How many of its first components to keep.")],
    out_folder: Annotated[Path, typer.Option("--out", metavar="SHORTER", help="The folder to write.")],
) -> None:
    """Keep only the first components of a tower's vectors, normalised anew: a smaller and faster index.

    Made for towers that were trained with `matryoshka`: others lose much by it. Cut the query tower of a space like its
    document tower: they are of one space again.
    """
    refuse_foreign(out_folder, marker=SPEC_FILE)
    require_installed(NEEDED, "train")
    from bartizan_encoders.shortening import shortened
    from bartizan_encoders.tower import Tower

    shorter = shortened(Tower.load(folder), dim)
    refuse_another(out_folder, shorter.spec)
    _describe(out_folder, shorter.save(out_folder))


@tower.command("show")
def show(
    folder: Annotated[Path, typer.Argument(metavar="TOWER", help="A tower or an export.")],
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Show the spec, both identities and the size of a tower or an export."""
    spec = TowerSpec.read(folder)
    if as_json:
        facts = spec.model_dump(mode="json") | {"tower_id": spec.tower_id, "space_id": spec.space_id} | _size(folder)
        out.print_json(json.dumps(facts, ensure_ascii=False))
    else:
        _describe(folder, spec)


def _describe(folder: Path, spec: TowerSpec) -> None:
    size, unit = _size(folder), "dimensions"
    steps = [f"{spec.pooling} pooling", f"head {spec.head}"]
    if spec.kind == "sparse":
        unit = "terms"
        steps.reverse()  # the head works on each token
    rows = {
        "name": spec.name,
        "tower_id": spec.tower_id,
        "space_id": spec.space_id + (" (inherited)" if spec.space else ""),
        "vectors": f"{spec.kind}, {spec.dim} {unit}, {spec.similarity}, {spec.precision}",
        "made by": f"{', '.join(steps)}, {'normalised' if spec.normalise else 'not normalised'}",
    }
    if told := _reading(spec):
        rows["reads"] = told
    for role, how in spec.roles.items():
        rows[role] = f"at most {how.max_tokens} tokens" + (f", prefix {how.prefix!r}" if how.prefix else "")
    if "parameters" in size:
        rows["parameters"] = f"{size['parameters']:,}"
    rows["on disk"] = f"{size['bytes'] / 1e6:,.1f} MB in {folder}"
    for label, value in rows.items():
        out.print(f"{label:<11} {value}", markup=False)


def _reading(spec: TowerSpec) -> str:
    """What is unusual about how the tower reads a text."""
    told = {
        "no special tokens": spec.special_tokens == "none",
        "each text twice": spec.echo,
        "every token sees all of the text": spec.attention == "bidirectional",
        f"only the {spec.top_terms} heaviest terms are kept": spec.top_terms is not None,
    }
    return ", ".join(what for what, so in told.items() if so)


def _size(folder: Path) -> dict[str, Any]:
    """Bytes on disk and, for a tower that holds torch weights, the number of parameters."""
    size: dict[str, Any] = {"bytes": sum(path.stat().st_size for path in folder.iterdir() if path.is_file())}
    if (folder / _WEIGHTS_FILE).exists():
        size["parameters"] = _count_parameters(folder / _WEIGHTS_FILE)
    return size


def _count_parameters(weights: Path) -> int:
    """From the file's header alone: a length of eight bytes, then JSON."""
    try:
        with weights.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        return sum(math.prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, MemoryError) as error:
        raise Stop(f"{weights} is damaged: {error!r}; import or train the tower again") from error


def _numbers(option: str, text: str) -> tuple[int, ...]:
    """`0-2,5` is 0, 1, 2 and 5."""
    found: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise WrongUse(f"{option} {text!r:.80}: expected numbers and ranges as in 0-5,11")
        lowest, highest = int(first), int(last or first)
        if highest < lowest or highest > _MOST_LAYERS:
            raise WrongUse(f"{option} {text!r:.80}: {part.strip()} is no range of layers, which count from 0 upwards")
        found += range(lowest, highest + 1)
    return tuple(found)


def _one_of(option: str, value: str | None, allowed: tuple[str, ...]) -> Any:
    if value is not None and value not in allowed:
        raise WrongUse(f"{option} {value!r} is not one of {', '.join(allowed)}")
    return value
