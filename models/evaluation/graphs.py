"""Scene graphs of texts: by the verifier's rules, or by FactualSceneGraph where that is installed.

FactualSceneGraph (Li et al., "FACTUAL", 2023, arXiv 2305.17497) is the parser of CAPTURE. It needs weights, which
Strata does not fetch: the user names their folder.
"""

from __future__ import annotations

import functools
import importlib
import io
from collections.abc import Callable
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

from models.sentences import sentences_of
from models.verifier.attributes import group_of
from models.verifier.claims.nouns import is_visible
from models.verifier.claims.reading import statements_of
from models.verifier.lexicon import is_kind_of, singular
from models.verifier.structure import structure_of
from strata.errors import InvalidInput
from strata.evaluation.references import SceneGraph

Parser = Callable[[str], SceneGraph]


def by_rules(text: str) -> SceneGraph:
    """The things, attributes and relations that the verifier's rules find in an English text."""
    things: set[str] = set()
    attributes: set[tuple[str, str]] = set()
    relations: set[tuple[str, str, str]] = set()
    for sentence in sentences_of(text):
        for one in statements_of(structure_of(sentence)):
            if one.phrase is None or one.phrase.negated:
                continue
            noun = one.phrase.noun
            if one.kind in ("thing", "setting") and is_visible(noun):
                things.add(noun)
            elif one.kind == "attribute":
                attributes.add((noun, one.value))
            elif one.kind == "relation" and one.others and one.value:
                relations.add((noun, one.value, one.others[0].noun))
    return SceneGraph(frozenset(things), frozenset(attributes), frozenset(relations))


def alike(one: str, other: str) -> float:
    """How alike two words of graphs are: 1 for a word, its plural and its synonyms, 0.5 for a wider word, else 0.

    By WordNet, as CAPTURE's second step. CAPTURE's third step, the cosine of sentence embeddings, needs weights; a
    wider word counts half in its place.
    """
    first, second = singular(one.lower()), singular(other.lower())
    if first == second:
        return 1.0
    group = group_of(first)
    if group is not None and group == group_of(second):
        return 1.0
    down, up = is_kind_of(first, second), is_kind_of(second, first)
    return 1.0 if down and up else 0.5 if down or up else 0.0


def parser_of(weights: Path | None) -> Parser:
    """The parser: by rules, or FactualSceneGraph with the weights in a folder. Raises InvalidInput."""
    if weights is None:
        return by_rules
    if not weights.is_dir():
        raise InvalidInput(f"--graphs {weights}: no folder with weights of FactualSceneGraph")
    try:
        module = importlib.import_module("factual_scene_graph.parser.scene_graph_parser")
    except ImportError:
        raise InvalidInput("--graphs needs FactualSceneGraph: pip install FactualSceneGraph") from None
    try:
        made: Any = module.SceneGraphParser(str(weights), device="cpu")
    except Exception as error:  # the libraries that read weights have their own exceptions
        raise _refused(weights, error) from error

    def parse(text: str) -> SceneGraph:
        # sentence by sentence, as CAPTURE does; its own way of dividing a text needs data from the network
        sentences = sentences_of(text)
        try:
            # it draws a progress bar for each text
            with redirect_stderr(io.StringIO()):
                graphs = made.parse(sentences, beam_size=1, return_text=False) if sentences else []
        except Exception as error:  # such as those of another version of transformers than it was written for
            raise _refused(weights, error) from error
        return functools.reduce(SceneGraph.merged, map(of_factual, graphs), SceneGraph())

    return parse


def _refused(weights: Path, error: Exception) -> InvalidInput:
    reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
    return InvalidInput(f"--graphs {weights}: FactualSceneGraph cannot read texts with it: {reason}")


def of_factual(graph: dict[str, Any]) -> SceneGraph:
    """A graph as FactualSceneGraph gives it: entities with heads and attributes, relations by the entities' numbers."""
    heads = [str(one["head"]).lower() for one in graph.get("entities", ())]
    attributes = {
        (head, str(word).lower())
        for head, one in zip(heads, graph.get("entities", ()), strict=True)
        for word in one.get("attributes", ())
    }
    told = graph.get("relations", ())
    relations = {(heads[one["subject"]], str(one["relation"]).lower(), heads[one["object"]]) for one in told}
    # a sentence that says nothing gets one entity without a name
    return SceneGraph(frozenset(filter(None, heads)), frozenset(attributes), frozenset(relations))
