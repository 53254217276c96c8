"""The chat template that a model is trained with: its answers must end with the token that ends a turn.

A model whose training never shows that token goes on writing after its answer. The losses do not tell.
"""

from __future__ import annotations

from pathlib import Path

from transformers import ProcessorMixin
from trl.chat_template_utils import (
    get_training_chat_template,
    has_generation_markers,
    is_chat_template_stop_token_trained,
)

from training.config import ConfigError

TEMPLATES = Path(__file__).parent / "templates"
# what each family's own template contains, and the template to train it with
FAMILIES = {"message['role'].upper() + ': '": "llava-1.5.jinja"}


def use_training_template(processor: ProcessorMixin, given: Path | None = None) -> None:
    """Give the processor a template that marks the answers and the token that ends each; it is saved with the model.

    given: a file with such a template. Otherwise it is the processor's own if it teaches to stop, that which TRL has
    for this family, or that of FAMILIES. Raises ConfigError if there is none.
    """
    candidates = [_read(given)] if given else list(_candidates(processor))
    for template in candidates:
        if template and is_chat_template_stop_token_trained(processor, chat_template=template):
            processor.chat_template = template
            processor.tokenizer.chat_template = template
            return
    which = str(given) if given else "the model's chat template"
    raise ConfigError(
        f"model.chat_template: {which} does not teach the model to end its answers: the token that ends a turn "
        "must stand between {% generation %} and {% endgeneration %}; give a file with such a template"
    )


def _candidates(processor: ProcessorMixin) -> list[str | None]:
    own = processor.chat_template
    if isinstance(own, dict):
        own = own.get("default")
    if own is None:
        return []
    # TRL knows training templates by the exact text of the family's own
    known = None
    if not has_generation_markers(own):
        try:
            known = get_training_chat_template(processor)
        except ValueError:
            known = None
    ours = [_read(TEMPLATES / name) for mark, name in FAMILIES.items() if mark in own]
    return [own, known, *ours]


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8"
        raise ConfigError(f"model.chat_template: {path}: {reason}") from None
