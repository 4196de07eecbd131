"""Tensors of a version that an engine's loader leaves out: only those that it may are left out here too."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

from .. import slots
from ..errors import Mismatch, Unsupported
from .reload import some

# Computed by engines from their configuration.
SKIPPED = ("*rotary_emb.inv_freq",)


class LeftOut:
    """What the loader puts nowhere, or writes over: tied to a tensor that it loads, or skipped by a rule.

    tied      {tensor: the one that it is equal to, which the engine has}: so in every version that is applied
    skipped   tensors that the engine does without
    """

    def __init__(self, maps: list[slots.SlotMap], digests: dict[str, str], rules: Iterable[str]):
        """maps: of all ranks; digests: of the version that they hold. Raises Unsupported, with names, for others."""
        sources, rules = maps[0].sources, tuple(rules)
        refused = {name for each in maps for name in each.refused}
        placed = {slot.tensor for each in maps for slot in each.slots} | refused
        equals = {(digests[name], sources[name]): name for name in sorted(placed)}
        self.tied, self.skipped, unknown = {}, set(), []
        for name, source in sources.items():
            if name in placed or not source.elements:
                continue
            twin = equals.get((digests[name], source))
            if twin is not None:
                self.tied[name] = twin
            elif any(fnmatchcase(name, rule) for rule in rules):
                self.skipped.add(name)
            else:
                unknown.append(f"'{name}'")
        if unknown:
            raise Unsupported(
                f"the engine's loader leaves out {len(unknown)} tensors, which are equal to none that it loads: "
                f"{some(unknown)}; name those that the engine does without in `skipped`"
            )

    def check(self, version, digests: dict[str, str]) -> None:
        """Raises Mismatch if what is tied differs in a version of these digests."""
        for name, twin in self.tied.items():
            if digests[name] != digests[twin]:
                raise Mismatch(f"tensors '{twin}' and '{name}' are one in the engine and differ in {version.name}")
