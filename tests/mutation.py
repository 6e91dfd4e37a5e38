"""Known bugs put into the product on purpose: how.

A mutant replaces a piece of the text of one function, wherever in the product that is. It breaks
loudly where that text is gone. Tables of mutants are beside what finds them.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import attrs
import pytest


@attrs.frozen(slots=True)
class Mutant:
    """One bug.

    Args:
        name: what the product does wrong.
        target: "module:function" or "module:Class.method".
        old: a piece of the function's text.
        new: what stands there instead.
        killer: "module:test", the test that finds it; empty where a script replays it instead.
        args: of the test, where it takes some (``tmp_path`` is given by itself).
    """

    name: str
    target: str
    old: str
    new: str
    killer: str = ""
    args: dict[str, Any] = attrs.field(factory=dict)

    def apply(self, patch: pytest.MonkeyPatch) -> None:
        """Put the bug in."""
        module_name, _, path = self.target.partition(":")
        module = importlib.import_module(module_name)
        *owners, attribute = path.split(".")
        owner: Any = functools.reduce(getattr, owners, module)
        assert attribute in vars(owner), f"{self.name}: there is no {self.target} any more"
        original = vars(owner)[attribute]
        function: Any = original.fget if isinstance(original, property) else original
        source = textwrap.dedent(inspect.getsource(function))
        assert source.count(self.old) == 1, f"{self.name}: the text of {self.target} has changed"
        scope = dict(vars(module))
        exec("from __future__ import annotations\n" + source.replace(self.old, self.new), scope)
        mutated = scope[attribute]
        if inspect.isfunction(mutated) and mutated.__closure__ is None:
            # It must see the module as it is, what a test patches included, and not a copy.
            mutated = type(mutated)(mutated.__code__, vars(module), attribute, mutated.__defaults__)
            mutated.__kwdefaults__ = function.__kwdefaults__
        patch.setattr(owner, attribute, mutated)
        for name, other in list(sys.modules.items()):
            # Whoever imported the function by its name holds it too.
            if name.startswith(("consensus.", "kvstore.", "tests.")) and (
                vars(other).get(attribute) is original
            ):
                patch.setattr(other, attribute, mutated)


@contextmanager
def applied(mutant: Mutant) -> Iterator[None]:
    """Have the bug in the product for a while."""
    with pytest.MonkeyPatch.context() as patch:
        mutant.apply(patch)
        yield
