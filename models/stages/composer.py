"""Composer: a chat model writes one description from a record's kept layers.

Back ends: "transformers" (a model in this process), "openai" (a chat server, in `models.chat.backends`), and "counting"
(a fixed grammar, no model). The notes give positions and sizes in words, never as coordinates.
`models.evidence.support` ties the description to the layers.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from models.demo.grounding import Encode, Fact, Guide, Relation
from models.generation import search_settings, were_cut
from models.guards import Asked, language_of
from models.items import ComposeRequest, Written
from models.prompts import Prompt, facts_of, load_prompt, relations_of
from models.prompts.lengths import LENGTHS
from models.prompts.messages import asked_by, messages_of
from models.variants.plain import told
from models.weights.cache import locate
from models.writers import ComposerStage
from strata.core import CountingComposerParameters, StageSettings, TransformersComposerParameters

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from models.demo.decoding import GuidedDecoder


class _Told(NamedTuple):
    """What a grounded text tells. sentences: how many may hold the facts."""

    facts: tuple[Fact, ...]
    relations: tuple[Relation, ...]
    sentences: int


class TransformersComposer(ComposerStage):
    """A causal chat model of transformers with greedy decoding, in batches of prompts of similar length."""

    name = "composer"
    _model: PreTrainedModel
    _tokenizer: PreTrainedTokenizerBase
    _decoder: GuidedDecoder

    def __init__(self, settings: StageSettings) -> None:
        super().__init__(settings)
        self._parameters = self._checked(settings)
        self._prompt: Prompt = load_prompt(
            self._parameters.prompt, self._parameters.prompt_sha256, settings.prompt_text
        )
        if self._parameters.grounded and self._prompt.wording is None:
            raise ValueError(f"prompt {self._parameters.prompt!r} has no [wording], which grounded decoding needs")

    def _checked(self, settings: StageSettings) -> TransformersComposerParameters:
        return TransformersComposerParameters.model_validate(settings.parameters)

    def load(self) -> None:
        """Load the model into memory. Raises WeightsMissing."""
        # torch takes seconds to import, and the check of the settings in the constructor does not need it
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        from models.demo.decoding import GuidedDecoder
        from models.demo.int8 import quantise
        from models.devices import load_model

        folder: Path = locate(self.settings)
        precise = torch.bfloat16 if self._parameters.precision == "bfloat16" else torch.float32
        self._tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left", local_files_only=True)
        # int8 layers run on a CPU only, see `models.demo.int8`
        quantised = self._parameters.precision == "int8"
        device = torch.device("cpu") if quantised else None
        self._model = load_model(AutoModelForCausalLM, folder, precise, device)
        if quantised:
            quantise(self._model.base_model)
        if self._parameters.grounded:
            # the tokens before the notes are the same for all prompts: the decoder computes them once
            start, _, after = self._chat("@@").partition("@@")
            self._start, self._after = self._encode(start), self._encode(after)
            self._decoder = GuidedDecoder(self._model, self._start)

    def asked(self, item: ComposeRequest) -> Asked | None:
        """The prompt, which the text must not repeat; None for a record without notes."""
        return asked_by(self._prompt, item) if self._notes(item) else None

    @property
    def language(self) -> str:
        """The language of the prompt."""
        return language_of(self._prompt.system)

    def compute(self, batch: Sequence[ComposeRequest]) -> list[str]:
        """A text for each request, "" for a record without notes. The images of the requests are not used."""
        # the texts of the notes, shortest first: prompts of similar length need little padding
        prompts = [self._notes(request) for request in batch]
        order = sorted((i for i, notes in enumerate(prompts) if notes), key=lambda i: len(prompts[i]))
        texts: list[str] = [""] * len(batch)
        if order:
            # write, and put the texts back into the order of the batch
            write = self._write_grounded if self._parameters.grounded else self._write_freely
            for i, text in zip(order, write([batch[i] for i in order], [prompts[i] for i in order]), strict=True):
                texts[i] = text
        return texts

    @property
    def heeds_errors(self) -> bool:
        """Grounded decoding along the same notes gives the same text."""
        return not self._parameters.grounded

    def _notes(self, request: ComposeRequest) -> str:
        """What the text is made of: the text of a record's notes, or the original; "" without notes."""
        return request.original or self._prompt.notes(request.record, self._parameters.max_notes, request.length)

    def _write_grounded(self, requests: Sequence[ComposeRequest], prompts: Sequence[str]) -> list[str]:
        # one text for all requests of which the same is told, such as two lengths of a record with few facts
        told = [(prompt, self._told(request)) for request, prompt in zip(requests, prompts, strict=True)]
        places = {one: place for place, one in enumerate(dict.fromkeys(told))}
        # one guide per text: it allows only words that the facts of the record support
        encode = functools.cache(self._encode)
        guides = [self._guide(facts, encode) for _, facts in places]
        # decode from the end of the shared prompt start
        most = self._parameters.max_new_tokens * max(LENGTHS[request.length].budget for request in requests)
        tokens = [self._shortened(encode(self._chat(prompt))[len(self._start) :], most) for prompt, _ in places]
        self._decoder.write(tokens, guides, most)
        texts = [str(self._tokenizer.decode(guide.tokens)).strip() for guide in guides]
        return [Written(texts[places[one]]) for one in told]

    def _told(self, request: ComposeRequest) -> _Told:
        wording, most, length = self._prompt.wording, self._parameters.max_notes, LENGTHS[request.length]
        assert wording is not None  # checked in __init__
        facts = facts_of(request.record, most, request.length)
        relations = relations_of(request.record, most, wording, request.length)
        sentences = wording.sentences if length.sentences is None else length.sentences
        # a sentence has a fact: more sentences than facts are never written; one sentence has settings in it
        bounded = min(sentences, max(2, len(facts))) if len(facts) > 1 else 2
        return _Told(tuple(facts), tuple(relations), bounded)

    def _guide(self, told: _Told, encode: Encode) -> Guide:
        assert self._prompt.wording is not None  # checked in __init__
        wording = replace(self._prompt.wording, sentences=told.sentences)
        return Guide(wording, told.facts, encode, int(self._tokenizer.eos_token_id), told.relations)

    def _shortened(self, tokens: Sequence[int], most: int) -> Sequence[int]:
        """A prompt's tokens after the start; of notes that the model has no room for (a page of text) the beginning.

        most: tokens of the text.
        """
        longest = self._decoder.longest(most)
        if len(tokens) <= longest:
            return tokens
        return [*tokens[: max(0, longest - len(self._after))], *self._after]

    def _write_freely(self, requests: Sequence[ComposeRequest], prompts: Sequence[str]) -> list[str]:
        import torch

        # padding on the left, so that all texts start at the same position
        pairs = zip(requests, prompts, strict=True)
        chats = [self._template(messages_of(self._prompt, request, notes)) for request, notes in pairs]
        inputs = self._tokenizer(chats, return_tensors="pt", padding=True, add_special_tokens=False)
        inputs = inputs.to(self._model.device)
        with torch.inference_mode():
            output = self._model.generate(  # type: ignore[operator]  # a mixin that transformers leaves untyped
                **inputs, max_new_tokens=self._parameters.max_new_tokens, **search_settings(self.variation)
            )
        written = output[:, inputs.input_ids.shape[1] :]
        texts = self._tokenizer.batch_decode(written, skip_special_tokens=True)
        return [Written(text, cut) for text, cut in zip(texts, were_cut(written, self._model), strict=True)]

    def _chat(self, notes: str) -> str:
        return self._template(self._prompt.messages(notes))

    def _template(self, messages: list[dict[str, str]]) -> str:
        return str(self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))

    def _encode(self, text: str) -> tuple[int, ...]:
        return tuple(self._tokenizer(text, add_special_tokens=False).input_ids)


class CountingComposer(ComposerStage):
    """Counts and places by a fixed grammar, see `models.kinds.counting`. It has no weights."""

    name = "composer"

    def __init__(self, settings: StageSettings) -> None:
        super().__init__(settings)
        self._parameters = CountingComposerParameters.model_validate(settings.parameters)

    @property
    def varies(self) -> bool:
        """The same layers give the same text."""
        return False

    def load(self) -> None:
        """Do nothing: there are no weights."""

    def compute(self, batch: Sequence[ComposeRequest]) -> list[str]:
        """A text for each request; of a record without kept entries it says that nothing was found."""
        return [told(request.record, self._parameters.max_notes, request.length) for request in batch]
