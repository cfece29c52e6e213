"""What decides how something turns out, as one digest: the code that makes it, and by value all that the code names.

Code counts as its syntax: names, constants and operations. Comments, docstrings, white space and positions do not. It
is read from what was compiled and not from a file: that is what runs, also when somebody has edited the file since, and
a function of a notebook cell has no file in the process of a worker. From a function the digest follows

    every function, class and method that it names, in this package, in a notebook, in a module of the reader's own;
    every other value that it names or closes over, its default arguments, and the fields of an argument.

Installed packages count by name and version. So the digest is the same in a notebook and in its workers, and another
one when anything is changed that could matter. What is looked up by a name that stands nowhere in the code (a file
that is read, a variable of the environment) is not seen: hand it over as an argument. A global list that grows as the
function is used is another value each time: keep such things inside it.
"""

from __future__ import annotations

import copyreg
import functools
import importlib
import importlib.metadata
import importlib.util
import math
import platform
import sys
import types
import weakref
from pathlib import PurePath

from .syntax import plain, read, sha

LIBRARY = __name__.partition(".")[0]
# How a model is kept says nothing about what it is; in memory or on disk, old or new.
SKIPPED = {__name__, f"{LIBRARY}.models.cache"}
PACKAGES = {"datasets", "numpy", "pandas", "tokenizers", "torch", "transformers"}  # wherever they were installed
PLAIN = (type(None), bool, int, float, complex, str, bytes, range, type(...), type(NotImplemented))
# They hold a function and say nothing that its own code does not: attribute that leads to it.
WRAPPERS = {
    classmethod: "__func__", staticmethod: "__func__", functools.cached_property: "func",
    functools._lru_cache_wrapper: "__wrapped__",  # not what it remembers
}  # fmt: skip
WEAK = (weakref.WeakSet, weakref.WeakKeyDictionary, weakref.WeakValueDictionary)


def of(*things) -> tuple[str, dict[str, str]]:
    """The digest of functions and their arguments, and the versions of the packages that they use.

    Raises:
        TypeError: something that is named has no value to go by (an open file, a lock, a generator): says which.
    """
    walk = _Walk()
    parts = [walk.named(getattr(t, "__name__", f"argument {i}"), t) for i, t in enumerate(things)]
    found = versions("torch", "transformers", *walk.packages)
    return sha(repr(found).encode(), *parts).hex()[:20], found


def versions(*packages: str) -> dict[str, str]:
    """package -> the version that is installed here, and Python's."""
    found = {name: _version(name) for name in sorted(set(packages) - {"python"})}
    return {"python": ".".join(platform.python_version_tuple()[:2])} | found


@functools.cache
def _version(package: str) -> str:
    try:
        version = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # installed under another name than it is imported by
        version = str(getattr(sys.modules.get(package), "__version__", ""))
    return version.split("+")[0]  # what stands behind it is the device, see `machine`


def machine() -> dict[str, str]:
    """What of this machine may change the last digits of a training: device, processor capability, threads."""
    import torch

    cuda = torch.cuda.is_available()
    return {
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "capability": torch.backends.cpu.get_cpu_capability(),  # follows ATEN_CPU_CAPABILITY
        "threads": str(torch.get_num_threads()),
    }


@functools.cache
def _installed(package: str) -> bool:
    """Is this top-level package one that was installed, and not this library or the reader's own?"""
    if package in (LIBRARY, "__main__", "__mp_main__"):
        return False
    if package in PACKAGES or package in sys.stdlib_module_names:
        return True
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):  # a module that was made up at run time
        return False
    places = [spec.origin, *(spec.submodule_search_locations or ())] if spec else []
    return any({"site-packages", "dist-packages"} & set(PurePath(p).parts) for p in places if p)


class _Walk:
    """One way through everything that is named. A value that is met twice is read once; circles are closed."""

    def __init__(self):
        self.packages: set[str] = set()
        self.trail: list[str] = []  # names on the way here, for messages
        self.known: dict[int, bytes] = {}
        self.circles: dict[int, set[int]] = {}  # a known value -> all that can reach it and is reached from it
        self.open: dict[int, int] = {}  # values that are being read -> how deep
        self.alive: list = []  # an id is one value's own only as long as the value exists
        self.lowest = math.inf  # the least deep of the open values that was met again
        self.circle: set[int] = set()

    def value(self, thing) -> bytes:
        kind = type(thing)
        if kind in PLAIN:
            return plain(thing)
        number, depth = id(thing), len(self.open)
        if number in self.open:
            self.lowest = min(self.lowest, self.open[number])
            return b"again %d" % (depth - self.open[number])
        # Within a circle everything is read from where the circle was entered. Otherwise a copy of one of its
        # functions, as a worker may hold, would look different from the function itself.
        if number in self.known and self.circles.get(number, set()).isdisjoint(self.open):
            return self.known[number]
        (outer, circle), (self.lowest, self.circle) = (self.lowest, self.circle), (math.inf, set())
        self.open[number] = depth
        self.alive.append(thing)
        text = sha(*self._parts(thing))
        del self.open[number]
        self.circle.add(number)
        if self.lowest >= depth:  # nothing in it leads to a value that is still open
            self.known[number] = text
            if self.lowest == depth:
                self.circles[number] = self.circle
            self.lowest, self.circle = outer, circle
        else:
            self.lowest, self.circle = min(self.lowest, outer), self.circle | circle
        return text

    def named(self, name: str, thing) -> bytes:
        self.trail.append(name)
        text = self.value(thing)
        self.trail.pop()
        return text

    def _parts(self, thing) -> list[bytes]:
        kind = type(thing)
        if kind in (list, tuple):
            return [kind.__name__.encode(), *map(self.value, thing)]
        if kind in (set, frozenset):
            return [b"set", *sorted(map(self.value, thing))]
        if kind in (dict, types.MappingProxyType):  # in order: whoever goes through it sees the order
            return [b"dict", *(part for k, v in thing.items() for part in (self.value(k), self.named(str(k), v)))]
        if kind in WEAK:  # a memory of what is alive makes nothing
            return [b"weak"]
        if kind is types.FunctionType:
            return self._function(thing)
        if kind in WRAPPERS:
            return [kind.__name__.encode(), self.value(getattr(thing, WRAPPERS[kind]))]
        if kind is property:
            return [b"property", *map(self.value, (thing.fget, thing.fset, thing.fdel))]
        if kind is types.MethodType:
            return [b"method", self.value(thing.__func__), self.value(thing.__self__)]
        if kind is types.ModuleType:
            return self._module(thing)
        if isinstance(thing, type):
            return self._class(thing)
        if kind in (types.BuiltinFunctionType, types.MethodDescriptorType, types.WrapperDescriptorType) and (
            isinstance(getattr(thing, "__self__", None), types.ModuleType | None)
        ):
            return self._by_name(getattr(thing, "__module__", None) or "builtins", thing.__qualname__)
        if kind in (types.MemberDescriptorType, types.GetSetDescriptorType):
            return [b"slot", thing.__name__.encode()]
        return self._instance(thing)

    def _by_name(self, module: str, name: str) -> list[bytes]:
        package = module.partition(".")[0]
        if _installed(package) and package not in sys.stdlib_module_names:
            self.packages.add(package)
        return [b"name", package.encode(), name.encode()]  # packages move their insides about

    def _function(self, f: types.FunctionType) -> list[bytes]:
        module = f.__globals__.get("__name__") or ""
        if module in SKIPPED:
            return [b"name", f.__qualname__.encode()]
        installed = _installed(module.partition(".")[0])
        its = f.__module__ or ""  # where it can be imported from: not always where it was written
        if installed and _installed(its.partition(".")[0]) and getattr(sys.modules.get(its), f.__name__, None) is f:
            return self._by_name(its, f.__name__)
        cells = zip(f.__code__.co_freevars, f.__closure__ or (), strict=True)
        held = [self.named(name, _content(cell)) for name, cell in cells]
        if installed:  # a decorator of a package holds what it decorates in a cell
            return [*self._by_name(module, f.__code__.co_qualname), *held]
        code, names = read(f.__code__)
        parts = [b"function", code, self.value(f.__defaults__), self.value(f.__kwdefaults__), *held]
        return parts + [self._looked_up(f.__globals__, *name) for name in names]

    def _looked_up(self, variables: dict, name: str, *attributes: str) -> bytes:
        """What a name stands for, as code looks it up; of a module, only the attribute that is used."""
        if name.startswith("."):  # imported within the function: see `syntax.read`
            module = name[1:]
            if not module.startswith(".") and _installed(module.partition(".")[0]):
                return sha(*self._by_name(module, ".".join([module, *attributes])))
            try:
                thing = importlib.import_module(module, variables.get("__package__"))
            except ImportError:
                return b"nothing"
        elif name in variables:
            thing = variables[name]
        else:
            return b"builtin"  # or nothing at all: the name itself stands in the code
        path = [name]
        for attribute in attributes:
            if not isinstance(thing, types.ModuleType):
                break
            if _installed(thing.__name__.partition(".")[0]):
                return sha(*self._by_name(thing.__name__, ".".join([thing.__name__, *attributes])))
            if not hasattr(thing, attribute):
                return b"nothing"
            thing = getattr(thing, attribute)
            path.append(attribute)
        return self.named(".".join(path), thing)

    def _module(self, module: types.ModuleType) -> list[bytes]:
        if module.__name__ in SKIPPED or _installed(module.__name__.partition(".")[0]):
            return self._by_name(module.__name__, module.__name__)
        content = {k: v for k, v in vars(module).items() if not k.startswith("__")}
        return [b"module", *(part for k in sorted(content) for part in (k.encode(), self.named(k, content[k])))]

    def _class(self, cls: type) -> list[bytes]:
        if _installed(cls.__module__.partition(".")[0]):
            return self._by_name(cls.__module__, cls.__qualname__)
        parts = [b"class", cls.__name__.encode(), self.value(cls.__bases__)]
        for name, member in sorted(vars(cls).items()):
            # torch hangs a profiler's hook around `step` when the first optimiser of a class is made
            while getattr(member, "hooked", False):
                member = member.__wrapped__
            # __doc__, __slots__ and their like are remarks: what they do shows elsewhere
            remark = name.startswith("__") and not callable(getattr(member, "__func__", member))
            if not remark and name not in ("_abc_impl", "__annotate__", "__annotate_func__"):
                parts += [name.encode(), self.named(name, member)]
        return parts

    def _instance(self, thing) -> list[bytes]:
        """By what it would be pickled as: its class and its state."""
        cls = type(thing)
        package = cls.__module__.partition(".")[0]
        if package == "torch" and cls.__name__ in ("Tensor", "Parameter"):
            import torch

            flat = thing.detach().cpu().contiguous().flatten()
            return [f"tensor {thing.dtype} {tuple(thing.shape)}".encode(), flat.view(torch.uint8).numpy().tobytes()]
        if package == "datasets" and cls.__name__ == "Dataset":  # its pickled form knows where it came from
            return [b"dataset", str(thing.features).encode(), self.value(thing.to_dict())]
        try:
            reduced = copyreg.dispatch_table[cls](thing) if cls in copyreg.dispatch_table else thing.__reduce_ex__(4)
        except Exception as e:
            where = " > ".join(self.trail) or "what is to be made"
            raise TypeError(
                f"{where} is {_article(cls.__name__)}, which has no value that a cache key could hold ({e}): "
                "open or make it inside the function, or pass plain values"
            ) from None
        if isinstance(reduced, str):
            return self._by_name(getattr(thing, "__module__", None) or cls.__module__, f"{cls.__qualname__} {reduced}")
        make, arguments, *rest = reduced
        rest = [list(r) if hasattr(r, "__next__") else r for r in rest]  # the items of a list, of a dict
        return [b"instance", self.value(cls), self.value(make), self.value(arguments), *map(self.value, rest)]


def _content(cell: types.CellType) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # not filled yet
        return NotImplemented


def _article(name: str) -> str:
    return f"an {name}" if name[0] in "AEIOUaeiou" else f"a {name}"
