"""Objects that remember how they were built, so that a checkpoint can tell it."""

from __future__ import annotations

import importlib
import inspect
import sys
from dataclasses import asdict, is_dataclass
from typing import Any, Self

from detect.errors import InputError

ANY_ARGUMENTS = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


class Configurable:
    """Base of the classes that a configuration names: backbones, necks, losses.

    Its `init_args` are the arguments of the constructor, defaults included, as they were given.
    """

    init_args: dict[str, Any]

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Note the arguments; wrong ones are left for the constructor to refuse."""
        self = super().__new__(cls)
        signature = inspect.signature(cls.__init__)
        try:
            bound = signature.bind(self, *args, **kwargs)
        except TypeError:  # a copy is made without arguments; it takes the attributes of the original
            return self
        bound.apply_defaults()
        # A class without a constructor of its own has torch's, which takes any arguments and uses none.
        named = [name for name, p in signature.parameters.items() if p.kind not in ANY_ARGUMENTS][1:]
        self.__dict__["init_args"] = {name: bound.arguments[name] for name in named}
        return self

    def to_settings(self) -> dict[str, Any]:
        """`{class_path, init_args}` in plain values, as a YAML file would hold them."""
        return {"class_path": class_path(type(self)), "init_args": plain(self.init_args)}


def class_path(cls: type) -> str:
    """The shortest path that imports a class: of the package that shows it, else of its module.

    Raises:
        InputError: none does.
    """
    module = sys.modules.get(cls.__module__)
    if cls.__module__ == "__main__" or getattr(module, cls.__name__, None) is not cls:
        raise InputError(
            f"a checkpoint cannot name the class {cls.__qualname__} of {cls.__module__}: define it at the "
            "top level of a module (my_parts.py beside the script) and import it from there"
        )
    parts = cls.__module__.split(".")
    for length in range(1, len(parts)):
        package = ".".join(parts[:length])
        if getattr(importlib.import_module(package), cls.__name__, None) is cls:
            return f"{package}.{cls.__name__}"
    return f"{cls.__module__}.{cls.__name__}"


def plain(value: Any) -> Any:
    """Dataclasses as dictionaries, tuples as lists, configurable objects as settings."""
    if isinstance(value, Configurable):
        return value.to_settings()
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return value
