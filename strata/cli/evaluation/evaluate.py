"""`strata evaluate`: the figures of texts, and what they are compared with."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from strata.cli.evaluation.measuring import Asked, Comparing, evaluated
from strata.cli.evaluation.options import Images, Resamples, Seed, Source, TruthFiles, check_writable
from strata.cli.terminal import AsJson, Moved, StoreUri, open_store, output, steps
from strata.components import load
from strata.errors import InvalidInput, QualityDropped
from strata.files import writing

if TYPE_CHECKING:
    from strata.core import Profile
    from strata.evaluation.evaluation import Evaluation
    from strata.evaluation.truth_rates import TruthRates
    from strata.store import Store

References = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", exists=True, dir_okay=False, help="Texts that people wrote: COCO's captions, or JSON lines."
    ),
]
Graphs = Annotated[
    Path | None,
    typer.Option(metavar="DIR", exists=True, help="Weights of FactualSceneGraph; none: the verifier's rules."),
]
Asking = Annotated[
    str | None,
    typer.Option("--profile", metavar="NAME|FILE", help="A profile whose matchers are asked."),
]
ModelImages = Annotated[int, typer.Option("--model-images", min=2, help="Most images that matchers are asked about.")]
JudgeProfile = Annotated[
    str | None,
    typer.Option("--judge", metavar="NAME|FILE", help="A profile whose captioner, on a chat server, rates texts."),
]
Tokens = Annotated[int | None, typer.Option("--budget-tokens", min=1, help="Most tokens that the judge may cost.")]
Money = Annotated[float | None, typer.Option("--budget-money", min=0.0, help="Most money that the judge may cost.")]
Against = Annotated[
    str | None, typer.Option(metavar="BASE", help="A saved evaluation, a job or a snapshot to compare with.")
]
Judged = Annotated[bool, typer.Option("--judgments", help="Also what people said in review.")]
Out = Annotated[Path | None, typer.Option("--out", "-o", metavar="FILE", help="Save the evaluation as JSON.")]


def evaluate(
    source: Source,
    truth: TruthFiles = None,
    references: References = None,
    graphs: Graphs = None,
    profile: Asking = None,
    judge: JudgeProfile = None,
    budget_tokens: Tokens = None,
    budget_money: Money = None,
    model_images: ModelImages = 100,
    images: Images = 5000,
    against: Against = None,
    out: Out = None,
    seed: Seed = 0,
    resamples: Resamples = 1000,
    judgments: Judged = False,
    as_json: AsJson = False,
    root: Moved = None,
    store: StoreUri = None,
) -> None:
    """Measure the texts of a job or a snapshot: every layer, every variant, and what they are compared with.

    --truth names files of what is in the images; scenes of `strata samples` bring theirs with them. With --against,
    exit code 16 if a figure dropped beyond noise.
    """
    opened = open_store(store, root)
    asked = Asked(images, tuple(truth or ()), seed, resamples, _compared_by(references, graphs), model_images)
    base = _saved(opened, source, against)
    check_writable(out)
    asked = asked._replace(profile=_asked_profile(profile), judge=_judge_of(judge, budget_tokens, budget_money))
    with steps() as show:
        found = evaluated(opened, source, asked, show, base=base).evaluation
        if against is not None and base is None:
            # nobody pays twice to judge what is only compared
            base = evaluated(opened, against, asked._replace(judge=None), show).evaluation
    if out is not None:
        _save(found, out)
    _print(found, as_json, _truth_rates(opened, source) if judgments else None)
    if base is not None:
        _tell_changes(found, base, str(against), as_json)


def _saved(store: Store, source: str, against: str | None) -> Evaluation | None:
    """The evaluation in a file that `--against` names; None for a job or a snapshot, which is evaluated later.

    Whatever cannot be evaluated or compared with is refused now, before the work. Raises InvalidInput, UnknownSource
    and OSError.
    """
    from strata.evaluation.evaluation import read_evaluation
    from strata.evaluation.rows import check_source
    from strata.store import UnknownSource

    check_source(store, source)
    if against is None:
        return None
    path = Path(against)
    if path.is_file():
        return read_evaluation(path)
    try:
        check_source(store, against)
    except UnknownSource:
        if path.is_dir():
            raise InvalidInput(f"--against {against}: a folder") from None
        raise UnknownSource(against, "there is no such file, job, snapshot, profile or fingerprint") from None
    return None


def _compared_by(references: Path | None, graphs: Path | None) -> Comparing | None:
    """What texts are compared with. Raises InvalidInput for a parser without references, and for a bad file."""
    if references is None:
        if graphs is not None:
            raise InvalidInput("--graphs says how --references are read: add --references")
        return None
    from strata.evaluation.references import read_references

    rows = read_references(references)
    return Comparing(references, rows, load("models.evaluation.graphs", "workers").parser_of(graphs))


def _asked_profile(name: str | None) -> Profile | None:
    """The profile whose matchers are asked. Raises InvalidInput for one without a matcher."""
    if name is None:
        return None
    from strata.cli.profiles import file_of
    from strata.core import read_profile

    found = read_profile(file_of(name))
    if "matcher" not in found.stages:
        raise InvalidInput(f"profile {found.name} has no matcher that could be asked")
    return found


def _judge_of(name: str | None, tokens: int | None, money: float | None) -> Any:
    """The judge of a profile; None if none is asked for. Raises InvalidInput for one without a budget."""
    if name is None:
        return None
    if tokens is None and money is None:
        raise InvalidInput("a judge costs money: give --budget-tokens or --budget-money")
    from strata.cli.profiles import file_of
    from strata.core import read_profile

    judging = load("models.evaluation.judging", "workers")
    return judging.judge_of(read_profile(file_of(name)), judging.Budget(tokens, money))


def _truth_rates(store: Store, source: str) -> TruthRates:
    from strata.evaluation.truth_rates import truth_rates

    return truth_rates(store, source)


def _save(found: Evaluation, out: Path) -> None:
    with writing(out):
        out.write_text(found.model_dump_json() + "\n", encoding="utf-8")
    print(f"strata: the evaluation is saved as {out}", file=sys.stderr)


def _print(found: Evaluation, as_json: bool, judged: TruthRates | None) -> None:
    from strata.cli.rendering.evaluations import evaluation_tables

    if as_json:
        also = {"judgments": judged.model_dump()} if judged else {}
        print(json.dumps(found.model_dump(mode="json") | also) if also else found.model_dump_json())
        return
    output().print(evaluation_tables(found))
    if judged:
        from strata.cli.rendering.records import clean
        from strata.evaluation.truth_rates import told

        print("\n".join(map(clean, ["", "what people said:", *told(judged)])))


def _tell_changes(found: Evaluation, base: Evaluation, name: str, as_json: bool) -> None:
    """Tell what changed since the base of a name, on stderr beside JSON. Raises QualityDropped."""
    from strata.cli.rendering.evaluations import comparison_table
    from strata.consoles import PlainConsole
    from strata.evaluation.comparison import compared

    comparison = compared(found, base, name)
    console = PlainConsole(stderr=True, width=200) if as_json else output()
    console.print(comparison_table(comparison))
    if not comparison.passed:
        names = [f"{one.text} {one.figure}" for one in comparison.dropped]
        names += [f"{text} (missing)" for text in comparison.missing]
        raise QualityDropped(f"worse than {comparison.base}: {', '.join(names)}")
