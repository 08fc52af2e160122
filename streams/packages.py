"""Packages of third parties, taken in parts: a start leaves out what their own `__init__` imports beyond those.

    in_parts("prometheus_client")
    from prometheus_client.registry import CollectorRegistry

imports that module and what it needs, but none of the package's HTTP servers. Whoever asks the package for anything but
a module of its own gets all of it, then, as if it had been imported in the usual way.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.machinery import ModuleSpec
from importlib.util import find_spec, module_from_spec
from types import ModuleType
from typing import Any


def in_parts(name: str) -> None:
    """From now on, import this package in parts; without effect if it has been imported, or is not there."""
    if name not in sys.modules and (spec := find_spec(name)) is not None:
        module = module_from_spec(spec)
        module.__class__ = _Package
        sys.modules[name] = module


class _Package(ModuleType):
    """A package whose own code has not run."""

    __spec__: ModuleSpec

    def __getattr__(self, name: str) -> Any:
        """What is missing: a module of it that somebody else may not have imported yet, or else all of it is wanted."""
        if find_spec(f"{self.__name__}.{name}") is not None:
            return import_module(f"{self.__name__}.{name}")
        self.__class__ = ModuleType  # type: ignore[assignment]
        assert self.__spec__.loader is not None
        self.__spec__.loader.exec_module(self)
        return getattr(self, name)
