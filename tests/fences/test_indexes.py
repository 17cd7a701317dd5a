"""No kind looks anything up by an index that the operator does not keep: each look-up would visit all objects of the kind."""

import importlib
import pkgutil

import pytest

import videogen_operator.kinds
from videogen_operator.kinds import KINDS
from videogen_operator.plan import Index, Kind

NAMES = [one.name for one in pkgutil.walk_packages(videogen_operator.kinds.__path__, "videogen_operator.kinds.")]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_each_index_of_a_kinds_modules_is_declared(kind: Kind[object]) -> None:
    package = kind.observe.__module__.rpartition(".")[0]
    modules = [importlib.import_module(name) for name in NAMES if name.startswith(package)]
    defined = {value for module in modules for value in vars(module).values() if isinstance(value, Index)}
    assert defined, f"{package} looks nothing up"
    assert defined == set(kind.indexes)
