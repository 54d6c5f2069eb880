"""Work that is done when another package is imported: before that it costs nothing, and after it is too late for users to ask for it."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType


def import_with(other: str, module: str) -> None:
    """Imports `module` as soon as `other` has been imported, which may be now. A failure is a warning: `other` does not depend on it."""
    if other in sys.modules:
        _import(module, other)
    else:
        sys.meta_path.insert(0, _Finder(other, module))


def _import(module: str, other: str) -> None:
    try:
        import_module(module)
    except (ImportError, AttributeError) as error:
        warnings.warn(f"{module} does not work with this version of {other}: {error}", stacklevel=2)


class _Finder(MetaPathFinder):
    """Finds one module where Python finds it, and adds to its loading."""

    def __init__(self, other: str, module: str) -> None:
        self._other, self._module = other, module

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if fullname != self._other:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, self._other, self._module)
        return spec


class _Loader(Loader):
    """A loader that imports another module afterwards."""

    def __init__(self, loader: Loader, other: str, module: str) -> None:
        self._loader, self._other, self._module = loader, other, module

    def __getattr__(self, name: str) -> object:
        # What inspection asks of a loader: the source, resources.
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        _import(self._module, self._other)
