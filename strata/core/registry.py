"""The registry: the stages of a profile and their back ends. It imports no model code.

The API and the command line validate profiles with it; a worker imports the classes that it names. Other packages add
back ends through the entry point group `strata.backends`, see docs/how-to/add-a-back-end.md.
"""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points

from strata.core import parameters as p
from strata.core.layers import LAYERS
from strata.core.layers.features import FEATURE_STAGES, FEATURES, READS_EMBEDDING
from strata.core.parameters import BUILT_IN, KINDS, BackEnd
from strata.errors import InvalidInput

ENTRY_POINTS = "strata.backends"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_CODE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


class UnknownBackEnd(InvalidInput, ValueError):
    """A stage has no usable back end of a name; the message suggests one or lists them."""


@dataclass(frozen=True)
class StageSpec:
    """One stage: its name in a profile, and the group that runs it.

    needs: stages whose output is its input; needs_one_of: at least one of these is needed. parameters: the base of
    its back ends' parameter classes.
    """

    name: str
    group: str
    needs: tuple[str, ...] = ()
    needs_one_of: tuple[str, ...] = ()
    parameters: type[p.Parameters] = p.Parameters

    @property
    def makes_layer(self) -> bool:
        """Whether it computes a layer from an image, rather than scoring layers or composing a text from them."""
        return self.group == "vision" and any(layer.stage == self.name for layer in LAYERS.values())


_NAMED_STAGES = (
    StageSpec("captioner", "vision"),
    StageSpec("detector", "vision"),
    # the captioner describes the crops of its masks
    StageSpec("segmenter", "vision", needs=("captioner",), parameters=p.SegmenterParameters),
    StageSpec("ocr", "vision"),
    StageSpec("matcher", "vision", needs_one_of=("captioner", "detector")),
    # it is asked about what the matcher keeps
    StageSpec("second_matcher", "vision", needs=("matcher",)),
    StageSpec("composer", "llm"),
    # it checks each sentence of the composer's text
    StageSpec("verifier", "llm", needs=("composer",)),
    *(StageSpec(name, FEATURES, ("embedding",) if name in READS_EMBEDDING else ()) for name in FEATURE_STAGES),
)
_NAMED = {spec.name for spec in _NAMED_STAGES}
# a stage that maps whole images to a layer needs no entry above: its layer declares it
STAGES = _NAMED_STAGES + tuple(
    StageSpec(layer.stage, "vision")
    for layer in LAYERS.values()
    if layer.whole_image and layer.stage is not None and layer.stage not in _NAMED
)


class Registry:
    """The built-in back ends, and those that entry points add.

    refused: one line for each plug-in's entry point or back end that cannot be used, with its distribution.
    """

    def __init__(self, plug_ins: Iterable[EntryPoint] = ()) -> None:
        self.stages: Mapping[str, StageSpec] = {spec.name: spec for spec in STAGES}
        self.refused: list[str] = []
        self._back_ends = {(back_end.stage, back_end.name): back_end for back_end in BUILT_IN}
        self._add(plug_ins)

    def back_end(self, stage: str, name: str) -> BackEnd:
        """A stage's back end by its name. Raises UnknownBackEnd."""
        found = self._back_ends.get((stage, name))
        if found is None:
            known = [other for of, other in self._back_ends if of == stage]
            also = f" (plug-ins that cannot be used: {'; '.join(self.refused)})" if self.refused else ""
            raise UnknownBackEnd(f"{stage} has no back end {name[:60]!r}; {suggestion(name, known)}{also}")
        return found

    def deciding(self, stage: str, name: str) -> dict[str, int]:
        """What a fingerprint has of a back end's code: its version, unless that is the first or not known here."""
        found = self._back_ends.get((stage, name))
        return {"version": found.version} if found and found.version > 1 else {}

    @property
    def back_ends(self) -> list[BackEnd]:
        """All back ends, in the order of the stages."""
        order = list(self.stages)
        return sorted(self._back_ends.values(), key=lambda back_end: order.index(back_end.stage))

    def _add(self, plug_ins: Iterable[EntryPoint]) -> None:
        """Add the back ends of plug-ins. A name that two of them register is added for neither."""
        claimed: dict[tuple[str, str], list[tuple[str, BackEnd]]] = {}
        # collect all registrations first, so that the order of the plug-ins has no effect
        for entry in plug_ins:
            for back_end in self._loaded(entry):
                claimed.setdefault((back_end.stage, back_end.name), []).append((_distribution(entry), back_end))
        for key, claims in claimed.items():
            # a plug-in cannot replace a built-in back end
            owners = ["Strata itself"] if key in self._back_ends else []
            owners += [owner for owner, _ in claims]
            if len(owners) > 1:
                self.refused.append(f"{key[0]} back end {key[1]!r} is registered by {' and by '.join(owners)}")
            else:
                self._back_ends[key] = claims[0][1]

    def _loaded(self, entry: EntryPoint) -> list[BackEnd]:
        """The usable back ends of an entry point. For each of the others a reason is added to `refused`."""
        about = f"{_distribution(entry)}, entry point {entry.name!r}"
        try:
            found = entry.load()
        except (Exception, SystemExit) as error:  # third-party code: no exception of it may stop the service
            reason = " ".join(str(error).split())[:200]
            self.refused.append(f"{about}: {entry.value} cannot be imported: {type(error).__name__}: {reason}")
            return []
        usable = []
        for back_end in found if isinstance(found, (list, tuple)) else [found]:
            if fault := self._fault(back_end):
                self.refused.append(f"{about}: {fault}")
            else:
                usable.append(back_end)
        return usable

    def _fault(self, back_end: object) -> str:
        """The reason why an object that a plug-in registers cannot be used; "" if it can."""
        if not isinstance(back_end, BackEnd):
            return f"expected a BackEnd or a list of them, not {type(back_end).__name__}"
        if not all(isinstance(text, str) for text in (back_end.stage, back_end.name, back_end.code)):
            return "stage, name and code of a BackEnd must be text"
        # check stage, name, parameter class, code and kinds of model, in this order
        spec = self.stages.get(back_end.stage)
        if spec is None:
            return f"there is no stage {back_end.stage!r}; {suggestion(back_end.stage, self.stages)}"
        if not _NAME.fullmatch(back_end.name):
            return f"{back_end.name!r} is not a valid name: use letters, digits, _ and -"
        if not (isinstance(back_end.parameters, type) and issubclass(back_end.parameters, spec.parameters)):
            return f"the parameters of {back_end.name!r} must extend {spec.parameters.__qualname__}"
        if not _CODE.fullmatch(back_end.code):
            return f"the code of {back_end.name!r} is {back_end.code!r}, expected MODULE:CLASS"
        if not (isinstance(back_end.models, tuple) and all(isinstance(kind, str) for kind in back_end.models)):
            return f"the models of {back_end.name!r} must be a tuple of texts"
        unknown = set(back_end.models) - set(KINDS)
        return f"{back_end.name!r} accepts unknown kinds of model: {', '.join(sorted(unknown))}" if unknown else ""


@functools.cache
def installed() -> Registry:
    """The registry with the installed plug-ins. The first call loads them; later calls return the same object."""
    return Registry(entry_points(group=ENTRY_POINTS))


def suggestion(word: str, known: Iterable[str]) -> str:
    """The known word that is most similar to a word, or else a list of all known words."""
    names = sorted(known)
    near = difflib.get_close_matches(word, names, 1)
    return f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(names) or 'none'}"


def _distribution(entry: EntryPoint) -> str:
    """The distribution of an entry point, as NAME VERSION."""
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else f"the distribution of {entry.value}"
