"""Prints what the running Python says about its own standard library, one JSON document a line.

Run as a program of its own (`python -I -S gather.py`), because some modules act when they are imported: whatever they
do or print stays in that process. Needs nothing but the standard library, and imports nothing of Bartizan.
"""

import contextlib
import importlib
import inspect
import json
import os
import pkgutil
import re
import sys
from collections.abc import Iterator
from types import FunctionType, ModuleType
from typing import Any

ACTIVE = """
    antigravity curses idlelib readline rlcompleter this tkinter turtle turtledemo
"""
"""Importing these opens a window or a browser, takes over the terminal, runs a program or prints."""
NO_LIBRARY = """
    encodings ensurepip distutils lib2to3 msilib pip pydoc_data setuptools test
"""
"""Data, tests, build tools, and what some machines lack."""
DOUBLES = """
    genericpath nt ntpath nturl2path posix posixpath sre_compile sre_constants sre_parse
"""
"""Other spellings of modules that are here: `os`, `os.path`, `re`."""
BUILT_INSIDE = """
    ctypes.macholib email.base64mime email.feedparser email.quoprimime importlib.readers importlib.simple
    json.decoder json.encoder json.scanner unittest.suite unittest.util wsgiref.validate
    xml.dom.expatbuilder xml.dom.minicompat xml.dom.xmlbuilder xml.sax.expatreader
"""
"""How a package is built; what is public of it is public in the package."""
LEFT_OUT = frozenset(" ".join((ACTIVE, NO_LIBRARY, DOUBLES, BUILT_INSIDE)).split())
CLOSED = frozenset(("asyncio", "concurrent.futures", "dbm", "multiprocessing"))
"""Packages whose sub-modules are all of that kind, except these few."""
OPEN = frozenset(
    f"multiprocessing.{name}" for name in ("connection", "managers", "pool", "shared_memory", "sharedctypes")
)
SECOND_CHOICE = frozenset(("bytearray", "bytes", "frozenset", "memoryview"))
"""Where two built-in types share a method and its docstring, these yield to the other."""
MIN_WORDS = 3
"""A docstring with fewer says no more than the name."""
MAX_SIGNATURE = 100
GENERATED = re.compile(r"Alias for field number \d+|An enumeration\.|partial\(func|\w+\([^)]*\)$")
"""Docstrings that Python itself writes for named tuples, enumerations and data classes."""


def module_names() -> list[str]:
    """Every public module and sub-module of the standard library, outer ones first."""
    outer = sorted(name for name in sys.stdlib_module_names if name[0] != "_" and name not in LEFT_OUT)
    names = [*outer, "os.path"]
    for name in names:
        module = load(name)
        for entry in pkgutil.iter_modules(getattr(module, "__path__", ())):
            inner = f"{name}.{entry.name}"
            built_inside = inner in LEFT_OUT or (name in CLOSED and inner not in OPEN)
            if entry.name[0] != "_" and entry.name not in ("test", "tests") and not built_inside:
                names.append(inner)
    return sorted(names, key=lambda name: (name.count("."), name))


def load(name: str) -> ModuleType | None:
    """The module, or None where this platform does not have it. Whatever it prints is dropped."""
    try:
        return importlib.import_module(name)
    except (ImportError, AttributeError, OSError, KeyError, ValueError):
        return None


def members(name: str, module: ModuleType) -> Iterator[tuple[str, Any]]:
    """The module's public names: what it declares, or what it defines where it declares nothing."""
    declared = getattr(module, "__all__", None)
    for attribute in sorted(set(declared) if declared is not None else vars(module)):
        value = getattr(module, attribute, None)
        own = declared is not None or name == "builtins" or getattr(value, "__module__", None) in (name, f"_{name}")
        if attribute[0] != "_" and own and is_documented(value):
            yield attribute, value


def is_documented(value: Any) -> bool:
    """Whether it is a class, or something to call that has a docstring."""
    if isinstance(value, type):
        return bool(text_of(value))
    return (inspect.isroutine(value) or hasattr(value, "__wrapped__")) and isinstance(value.__doc__, str)


def methods(cls: type) -> Iterator[tuple[str, str, Any]]:
    """The public methods and properties of the class and of the private classes it is built on, each with its kind."""
    public = [base for base in cls.__mro__[1:] if not is_private(base) and base is not object]
    parts = [base for base in cls.__mro__ if is_private(base) and not any(issubclass(other, base) for other in public)]
    own = {name: raw for part in (*reversed(parts), cls) for name, raw in vars(part).items()}
    for attribute, raw in sorted(own.items()):
        value = getattr(raw, "__func__", raw)
        if attribute[0] == "_" or not isinstance(getattr(value, "__doc__", None), str):
            continue
        if isinstance(value, property):
            yield attribute, "property", value
        elif inspect.isroutine(value):
            yield attribute, "method", value


def is_private(cls: type) -> bool:
    """Whether it lives in a private module and no public one shows it (`_socket.socket`, not `pathlib._local.Path`)."""
    outer, _, inner = cls.__module__.rpartition(".")
    shown = sys.modules.get(outer or inner[1:])
    return inner[0] == "_" and getattr(shown, cls.__name__, None) is not cls


def text_of(value: Any) -> str:
    """Its docstring; for a class also that of its constructor, where many classes say what they are for."""
    parts = [value.__doc__]
    constructor = vars(value).get("__init__") if isinstance(value, type) else None
    if isinstance(constructor, FunctionType):
        parts.append(constructor.__doc__)
    return "\n\n".join(inspect.cleandoc(part) for part in parts if isinstance(part, str) and part.strip())


def signature(value: Any) -> str:
    """The parameters with their defaults, without annotations; empty where Python does not know them."""
    try:
        known = inspect.signature(value)
    except (ValueError, TypeError, AttributeError):
        return ""
    bare = [
        parameter.replace(annotation=inspect.Parameter.empty)
        for parameter in known.parameters.values()
        if parameter.name not in ("self", "cls")
    ]
    try:
        text = str(known.replace(parameters=bare, return_annotation=inspect.Signature.empty))
    except ValueError:
        return ""
    text = re.sub(r"<([\w.]+)[^<>]*>", r"<\1>", text).replace(repr(sys.executable), "sys.executable")
    return text if len(text) <= MAX_SIGNATURE else "(…)"


def candidates() -> Iterator[tuple[tuple[object, ...], str, str, str, Any]]:
    """Every documented thing under every name it is public by: (rank of the name, module, kind, name, thing)."""
    for name in module_names():
        module = load(name)
        if module is None:
            continue
        yield (-2, name), name, "module", name, module
        for attribute, value in members(name, module):
            full = attribute if name == "builtins" else f"{name}.{attribute}"
            rank = (
                -1 if name == "builtins" else name.count("."),
                getattr(value, "__name__", attribute) != attribute,
                getattr(value, "__module__", None) not in (name, f"_{name}"),
            )
            kind = "class" if isinstance(value, type) else "function"
            yield (*rank, 0, attribute in SECOND_CHOICE, full), name, kind, full, value
            if isinstance(value, type):
                for inner, kind, method in methods(value):
                    yield (*rank, 1, attribute in SECOND_CHOICE, full, inner), name, kind, f"{full}.{inner}", method


def documents() -> Iterator[dict[str, str]]:
    """One document for each thing, under the best of its names, in order of the names."""
    seen: set[object] = set()
    chosen = []
    for _, module, kind, name, value in sorted(candidates(), key=lambda candidate: candidate[0]):
        text = text_of(value)
        keys = {id(value), id(getattr(value, "__func__", value)), name, (module, name.rpartition(".")[2], text)}
        if len(text.split()) < MIN_WORDS or GENERATED.fullmatch(text) or keys & seen:
            continue
        seen |= keys
        title = name if kind in ("module", "property") else name + signature(value)
        chosen.append({"_id": name, "title": title, "text": text, "module": module, "kind": kind})
    yield from sorted(chosen, key=lambda document: document["_id"])


def main() -> None:
    """Write the documents to the file named on the command line."""
    with open(os.devnull, "w", encoding="utf-8") as nowhere, contextlib.redirect_stdout(nowhere):
        gathered = list(documents())
    with open(sys.argv[1], "w", encoding="utf-8", newline="\n") as file:
        for document in gathered:
            file.write(json.dumps(document, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
