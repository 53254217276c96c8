"""The processor of a training: that of its model, with a chat template that teaches to end answers."""

from __future__ import annotations

from transformers import AutoProcessor, ProcessorMixin

from training.config import Config, ConfigError
from training.inputs.chat_templates import use_training_template
from training.inputs.windows import check_several_images


def load_processor(config: Config) -> ProcessorMixin:
    """Load the processor of a configuration's model. Raises ConfigError."""
    table = config.model
    try:
        processor: ProcessorMixin = AutoProcessor.from_pretrained(table.path, revision=table.revision)
    except (OSError, ValueError, ImportError) as error:
        line = str(error).strip().partition("\n")[0]
        raise ConfigError(f"model.path: {table.path} cannot be loaded: {line}") from None
    use_training_template(processor, table.chat_template)
    if config.windows is not None:
        check_several_images(processor, config.windows.across**2 + 1)
    return processor
