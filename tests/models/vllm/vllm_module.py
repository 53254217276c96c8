"""A module `vllm` whose classes accept and return exactly what the recorded version's do; a script answers.

The record is tests/data_files/vllm-0.33.0.json, see `vllm_signatures.py`. A wrong name, a missing argument, a kind
of message part that does not exist and a finish reason that is none are errors here as they are there. The model's own
work is not imitated: what it answers is the script's.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import pytest

from tests.checkout import CHECKOUT

RECORD: dict[str, Any] = json.loads((CHECKOUT / "tests" / "data_files" / "vllm-0.33.0.json").read_text("utf-8"))


@dataclass
class Reply:
    """What the model answers: the text, why it ended, and the log-probabilities of the first token by token id."""

    text: str
    end: str = "stop"
    scores: Mapping[int, float] = field(default_factory=dict)


Script = Callable[[list[dict[str, Any]], Any], Reply | Exception]  # of the messages and the SamplingParams


def signature_of(arguments: Sequence[tuple[str, str, bool]]) -> inspect.Signature:
    """A recorded signature. Defaults are not recorded: None stands for them."""
    found = []
    for name, kind, default in arguments:
        value = None if default else inspect.Parameter.empty
        found.append(inspect.Parameter(name, getattr(inspect.Parameter, kind), default=value))
    return inspect.Signature(found)


def _structure(name: str, arguments: Sequence[tuple[str, str, bool]]) -> type[Any]:
    """A class that has what it is made with, and refuses other names."""
    signature = signature_of(arguments)

    def init(self: Any, *given: Any, **named: Any) -> None:
        bound = signature.bind(*given, **named)
        bound.apply_defaults()
        self.__dict__.update(bound.arguments)

    return type(name, (), {"__init__": init, "__signature__": signature})


def _module(name: str) -> Any:
    return ModuleType(name)


def _errors() -> ModuleType:
    module = ModuleType("vllm.exceptions")
    known: dict[str, Any] = {"Exception": Exception}
    for name, bases in RECORD["errors"].items():
        known[name] = type(name, tuple(known[base] for base in bases), {})
    module.__dict__.update(known)
    return module


class Loaded:
    """The module, and what was done with it. engines: the arguments of each `LLM`; asked: messages and parameters."""

    def __init__(self, script: Script, tokenizer: Any = None) -> None:
        self.script, self.tokenizer = script, tokenizer
        self.engines: list[dict[str, Any]] = []
        self.asked: list[tuple[list[dict[str, Any]], Any]] = []
        self.batches: list[int] = []
        self.failing: Exception | None = None  # raised while the engine computes
        self.refusing: Exception | None = None  # raised by the engine's start
        self.errors = _errors()
        self.sampling = _module("vllm.sampling_params")
        self.sampling.StructuredOutputsParams = _structure("StructuredOutputsParams", RECORD["StructuredOutputsParams"])
        self.module = _module("vllm")
        self.module.__version__ = "0.33.0"
        self.module.SamplingParams = _structure("SamplingParams", RECORD["SamplingParams"])
        fields = [(name, Any, dataclasses.field(default=None)) for name, _, _ in RECORD["EngineArgs"]]
        self.module.EngineArgs = dataclasses.make_dataclass("EngineArgs", fields)
        self.module.LLM = self._llm()

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Make it what `import vllm` finds."""
        for module in (self.module, self.errors, self.sampling):
            monkeypatch.setitem(sys.modules, module.__name__, module)

    def _llm(self) -> type[Any]:
        signature = signature_of(RECORD["LLM"]["__init__"])

        def start(engine: Any, *given: Any, **named: Any) -> None:
            bound = signature.bind(*given, **named).arguments
            self.module.EngineArgs(**bound.pop("kwargs", {}))  # what the constructor passes on
            if self.refusing is not None:
                raise self.refusing
            self.engines.append(named)
            engine.waiting = []

        own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
        start.__signature__ = inspect.Signature([own, *signature.parameters.values()])  # type: ignore[attr-defined]
        methods = {
            "__init__": start,
            "enqueue_chat": lambda engine, *given, **named: self.enqueue(engine, given, named),
            "wait_for_completion": lambda engine, *given, **named: self.wait(engine, given, named),
            "get_tokenizer": lambda engine: self.tokenizer,
        }
        return type("LLM", (), methods)

    def enqueue(self, engine: Any, given: Any, named: Any) -> list[str]:
        """As vLLM does: an error in one request takes the earlier ones back."""
        bound = signature_of(RECORD["LLM"]["enqueue_chat"]).bind(*given, **named).arguments
        added = []
        for messages, sampling in zip(bound["messages"], bound["sampling_params"], strict=True):
            self.check(messages)
            answer = self.script(messages, sampling)
            if isinstance(answer, Exception):
                raise answer
            added.append((messages, sampling, answer))
        engine.waiting += added
        return [str(number) for number in range(len(added))]

    def wait(self, engine: Any, given: Any, named: Any) -> list[Any]:
        """The outputs of all that waits, in order."""
        bound = signature_of(RECORD["LLM"]["wait_for_completion"]).bind(*given, **named).arguments
        waiting, engine.waiting = engine.waiting, []
        self.batches.append(len(waiting))
        bar = bound["use_tqdm"](total=len(waiting), desc="Processed prompts", dynamic_ncols=True, postfix="")
        if self.failing is not None:
            raise self.failing
        outputs = [self.output(*one) for one in waiting]
        for _ in outputs:
            bar.update(1)
        bar.close()
        return outputs

    def check(self, messages: list[dict[str, Any]]) -> None:
        """Raise if vLLM has no such kind of part in a message."""
        for message in messages:
            for part in message["content"] if isinstance(message["content"], list) else []:
                assert part["type"] in RECORD["parts"], part["type"]
                assert part[part["type"]] is not None

    def output(self, messages: list[dict[str, Any]], sampling: Any, answer: Reply) -> Any:
        """A RequestOutput."""
        self.asked.append((messages, sampling))
        assert answer.end in RECORD["finish_reasons"]
        make = {name: _structure(name, RECORD[name]) for name in ("CompletionOutput", "RequestOutput", "Logprob")}
        scores = {token: make["Logprob"](score) for token, score in answer.scores.items()}
        wanted = sampling.logprob_token_ids
        logprobs = [{token: scores[token] for token in wanted}] if wanted else None
        tokens = list(range(len(answer.text.split())))
        one = make["CompletionOutput"](0, answer.text, tokens, None, logprobs, finish_reason=answer.end)
        read = sum(len(str(message["content"]).split()) for message in messages)
        return make["RequestOutput"]("0", "", [0] * read, None, [one], True)
