"""What compiled code says, as a digest: names, constants and operations, and nothing about lines or remarks."""

from __future__ import annotations

import dis
import functools
import hashlib
import types

HAS_DOCSTRING = 0x4000000  # a flag of code objects, from Python 3.13 on


def sha(*parts: bytes) -> bytes:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(b"%d:" % len(part))  # with its length: ("ab", "c") is not ("a", "bc")
        digest.update(part)
    return digest.digest()


def plain(thing) -> bytes:
    return thing if type(thing) is bytes else f"{type(thing).__name__} {thing!r}".encode("utf-8", "surrogatepass")


@functools.cache
def read(code: types.CodeType) -> tuple[bytes, tuple[tuple[str, ...], ...]]:
    """A digest of what code says, and the global names in it, with the attributes behind each.

    What is imported within the code comes as a name with a dot in front (and more of them where it is relative).

    Operations go with the names and constants that they mean: their numbers shift when a docstring is added. A
    docstring is a constant that no operation loads.
    """
    signature = (
        code.co_name, code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags & ~HAS_DOCSTRING,
        code.co_varnames, code.co_cellvars, code.co_freevars,
    )  # fmt: skip
    parts, names = [repr(signature).encode(), code.co_exceptiontable], []
    steps = list(dis.get_instructions(code))
    for i, step in enumerate(steps):
        loaded = step.argval
        if step.opname == "STORE_NAME" and loaded in ("__doc__", "__firstlineno__"):  # of a class in a function
            parts.pop()
            continue
        if step.opname in ("LOAD_GLOBAL", "LOAD_NAME") and not loaded.startswith("__"):
            names.append((loaded, *_attributes(steps, i)))
        elif step.opname == "IMPORT_NAME":
            level, wanted = steps[i - 2].argval, steps[i - 1].argval
            names += [("." + "." * level + loaded, *([n] if n else _attributes(steps, i))) for n in wanted or ("",)]
        parts.append(sha(step.opname.encode(), _constant(loaded, names)))
    return sha(*parts), tuple(dict.fromkeys(names))


def _attributes(steps: list[dis.Instruction], i: int) -> list[str]:
    found = []
    while i + 1 < len(steps) and steps[i + 1].opname in ("LOAD_ATTR", "LOAD_METHOD"):
        i += 1
        found.append(steps[i].argval)
    return found


def _constant(thing, names: list) -> bytes:
    if isinstance(thing, types.CodeType):
        text, inner = read(thing)
        names += inner
        return text
    if isinstance(thing, tuple | frozenset):
        parts = [_constant(x, names) for x in thing]
        return sha(*(parts if isinstance(thing, tuple) else sorted(parts)))
    return plain(thing)
