"""vLLM's offline engine (`vllm.LLM`) in this process: loaded once for all stages with equal settings, asked in batches.

The engine takes all questions of a batch at once and batches them itself, token by token. What is set in a profile is
compared with the names that the installed vLLM accepts: a name that it has not is an error before a model is loaded.

Whose fault an error is: what is raised while a question becomes a prompt (too long a prompt, a broken image) is the
question's, and vLLM takes the questions before it back. What is raised while the engine computes leaves it in an
unknown state, and so does lacking memory, since vLLM allocates all its memory at the start: then EngineBroken is
raised, and the process should end.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import inspect
import io
import json
import os
import threading
import weakref
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from models.faults import reason_of
from models.weights.cache import locate
from strata.core import StageSettings, Usage, VllmParameters
from strata.core.registry import suggestion

VERSION = "0.33.0"  # whose source was read; tests/data_files/vllm-0.33.0.json has its signatures
_ENDS = ("stop", "length")  # of an answer; others, such as "abort" and "error", are none
# vLLM's own variables: the engine shall die with this process, which may be killed, and send nothing to its makers
_ENVIRONMENT = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_NO_USAGE_STATS": "1", "VLLM_DO_NOT_TRACK": "1"}


class EngineMissing(ImportError):
    """vLLM is not installed here, or cannot be imported. The message says how to install it."""


class EngineFailed(RuntimeError):
    """The engine cannot be started on this machine now."""


class EngineBroken(RuntimeError):
    """The engine has failed while it computed: it can compute nothing more, and no question is at fault."""


class NoAnswer(RuntimeError):
    """The engine has ended this question without an answer."""


@dataclass(frozen=True)
class Question:
    """A chat turn for the engine. schema: of JSON that the answer must be; scored: tokens whose log-probabilities as
    the answer's first token are wanted.
    """

    messages: list[dict[str, Any]]
    max_tokens: int
    temperature: float = 0.0
    schema: Mapping[str, Any] | None = None
    scored: tuple[int, ...] = ()


@dataclass(frozen=True)
class Answer:
    """A text; cut: whether it ended at the token limit. scores: the log-probabilities of the scored tokens."""

    text: str
    cut: bool
    usage: Usage
    scores: Mapping[int, float] = field(default_factory=dict)


class Engine:
    """A loaded model. turn: held while it answers; a stage's `turn` is this one, as of `models.shared`.

    settings: arguments of `vllm.LLM`. Raises EngineMissing, EngineFailed, and ValueError for a setting that the
    installed vLLM does not have.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self.turn: AbstractContextManager[Any] = threading.RLock()
        self._vllm = vllm()
        accepted = {one.name for one in dataclasses.fields(self._vllm.EngineArgs)}
        _require(settings, accepted | names_of(self._vllm.LLM.__init__), "engine")
        self._broken = ""
        try:
            self._llm = self._vllm.LLM(model=str(folder), seed=0, **settings)
        except Exception as error:
            raise EngineFailed(f"vLLM cannot start with {folder.name}: {reason_of(error)}") from error

    @property
    def tokenizer(self) -> Any:
        """The model's tokenizer, one of transformers."""
        return self._llm.get_tokenizer()

    def check_sampling(self, sampling: Mapping[str, Any]) -> None:
        """Raise ValueError for a field or a value that the installed vLLM does not accept."""
        _require(sampling, names_of(self._vllm.SamplingParams), "sampling")
        try:
            self._sampling(Question([], 1), sampling)
        except Exception as error:
            raise ValueError(f"parameters.sampling: {reason_of(error)}") from error

    def ask(
        self,
        questions: Sequence[Question],
        parameters: VllmParameters,
        progress: Callable[[], None] = lambda: None,
    ) -> list[Answer]:
        """The answers, in order. progress: is called whenever an answer is complete.

        Raises EngineBroken; any other error is of one of the questions, and none was answered.
        """
        if self._broken:
            raise EngineBroken(self._broken)
        # make the prompts: images and chat templates are vLLM's, and so is what it takes back after an error
        sampling = [self._sampling(question, parameters.sampling) for question in questions]
        try:
            self._llm.enqueue_chat(
                [question.messages for question in questions],
                sampling,
                use_tqdm=False,
                chat_template_kwargs=dict(parameters.chat_template_kwargs) or None,
            )
        except Exception as error:
            if _is_of_the_engine(error):
                raise self._break(error) from error
            raise
        # compute all of them; the engine returns them in the order in which they came
        try:
            outputs = self._llm.wait_for_completion(use_tqdm=functools.partial(_bar, progress))
            if len(outputs) != len(questions):
                raise RuntimeError(f"it returned {len(outputs)} answers to {len(questions)} questions")
        except Exception as error:
            raise self._break(error) from error
        return [_answer(output, question.scored) for output, question in zip(outputs, questions, strict=True)]

    def _break(self, error: Exception) -> EngineBroken:
        self._broken = f"vLLM's engine has failed: {reason_of(error)}"
        return EngineBroken(self._broken)

    def _sampling(self, question: Question, sampling: Mapping[str, Any]) -> Any:
        """A question's `SamplingParams`. The seed is fixed, so that the same batch gives the same texts."""
        own: dict[str, Any] = {"max_tokens": question.max_tokens, "temperature": question.temperature, "seed": 0}
        if question.schema is not None:
            own["structured_outputs"] = self._structured.StructuredOutputsParams(json=dict(question.schema))
        if question.scored:
            own["logprob_token_ids"] = list(question.scored)
        return self._vllm.SamplingParams(**sampling, **own)

    @property
    def _structured(self) -> Any:
        return importlib.import_module("vllm.sampling_params")


_LOADED: weakref.WeakValueDictionary[tuple[str, str, str], Engine] = weakref.WeakValueDictionary()
_LOADING = threading.Lock()


def shared_engine(settings: StageSettings, parameters: VllmParameters) -> Engine:
    """The engine of a stage's weights and engine settings; it is loaded if no stage of this process uses it.

    The caller keeps the result as long as it uses the engine. Raises WeightsMissing and the errors of `Engine`.
    """
    folder, chosen = locate(settings), parameters.engine_settings()
    key = (settings.model, settings.revision, json.dumps(chosen, sort_keys=True))
    with _LOADING:
        found = _LOADED.get(key)
        if found is None:
            found = _LOADED[key] = Engine(folder, chosen)
    return found


def vllm() -> Any:
    """The package. Raises EngineMissing in one line."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        return importlib.import_module("vllm")
    except ImportError as error:
        absent = isinstance(error, ModuleNotFoundError) and error.name == "vllm"
        reason = "is not installed here" if absent else f"cannot be imported: {reason_of(error)}"
        raise EngineMissing(
            f"the back end 'vllm' needs vLLM, which {reason}; in an environment of its own: pip install 'strata[vllm]'"
        ) from error


def names_of(function: Any) -> set[str]:
    """The names of a function's or class's arguments, without `self` and those that take any."""
    every = inspect.signature(function).parameters.values()
    return {one.name for one in every if one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL)} - {"self"}


def _require(given: Collection[str], accepted: Collection[str], table: str) -> None:
    for name in given:
        if name not in accepted:
            version = getattr(vllm(), "__version__", "")
            raise ValueError(
                f"parameters.{table}: vLLM {version} does not accept {name!r}; {suggestion(name, accepted)}"
            )


def _is_of_the_engine(error: Exception) -> bool:
    """Whether vLLM says that its engine, and not the request, is at fault."""
    kinds = importlib.import_module("vllm.exceptions")
    return isinstance(error, kinds.VLLMServerError)


def _bar(progress: Callable[[], None], *arguments: Any, **named: Any) -> Any:
    """A bar of tqdm that prints nothing and reports each step."""
    bar = importlib.import_module("tqdm").tqdm(*arguments, **named, file=io.StringIO())
    update = bar.update

    def reported(steps: float | None = 1) -> Any:
        progress()
        return update(steps)

    bar.update = reported
    return bar


def _answer(output: Any, scored: Sequence[int]) -> Answer:
    """An answer of the engine's output. Raises NoAnswer."""
    (one,) = output.outputs
    if one.finish_reason not in _ENDS:
        raise NoAnswer(f"the engine gave no answer (finish_reason {one.finish_reason})")
    usage = Usage(prompt_tokens=len(output.prompt_token_ids or ()), completion_tokens=len(one.token_ids), requests=1)
    first = one.logprobs[0] if scored else {}
    scores = {token: float(first[token].logprob) for token in scored}
    return Answer(one.text, one.finish_reason == "length", usage, scores)
