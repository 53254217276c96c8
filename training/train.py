"""The reference training job: one stage, all tasks of a mixture mixed, on TRL, transformers and PEFT.

    strata train training/configs/monkey.toml
    accelerate launch --num-processes 8 -m strata train training/configs/monkey.toml

A run that was killed continues from its last checkpoint when it is started again, with the losses that it would have
had without the interruption. The configuration's `output` holds `checkpoint-N/`, `losses.jsonl` (a line a step, with
the loss of each task), `losses.png`, and in the end `model/`, as AutoModelForImageTextToText or PEFT loads it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from transformers import AutoModelForImageTextToText, PreTrainedModel, ProcessorMixin

from strata.cli.exits import code_of
from strata.core import load_settings
from strata.data import Locations, Mixture, MixtureFile, open_mixture
from strata.errors import StrataError
from strata.store import Store
from training.changes import RunRecord
from training.config import Config, ConfigError, load_config
from training.inputs.lengths import longest_line
from training.inputs.processors import load_processor
from training.losses import plot_losses
from training.memory_estimate import estimate_lines, start_lines
from training.parts import name_present_layers, weight_type
from training.processes import joined_processes
from training.splits import split
from training.trainer import StageTrainer, last_checkpoint, step_of

if TYPE_CHECKING:
    from accelerate import PartialState


def train(config: Config, mixture: Mixture, allow_changes: bool = False) -> Path:
    """Train to the end, from the last checkpoint if there is one; return the folder of the trained model.

    allow_changes: continue a run also with other settings than it was begun with. Raises ConfigError if the model
    cannot be loaded, ChangedRun, TooManySkipped, SourceAway, and SampleError if it shall stop for broken samples.
    """
    processes = joined_processes()
    checkpoint = last_checkpoint(config.output)
    step = step_of(checkpoint) if checkpoint else 0
    trained, validation = parts_of(config, mixture)
    record = RunRecord(config, trained, processes.num_processes)
    changes = record.check(step, allow_changes) if checkpoint else []
    _print_estimate(config, processes)
    model, processor = load_model(config)
    trainer = StageTrainer(model, processor, trained, config, validation)
    if checkpoint:
        print(f"continuing from step {step} of {trainer.args.max_steps}", flush=True)
    for change in changes:
        print(f"changed, as --allow-changes says: {change}", flush=True)
    if trainer.args.should_save:
        if line := longest_line(processor, config):
            print(line, flush=True)
        record.write(step, changes)
    trainer.train_from(checkpoint)
    folder = config.output / "model"
    trainer.save(folder)
    if trainer.args.should_save:
        processor.save_pretrained(folder)
        plot_losses(trainer.losses.read(), config.output / "losses.png")
    return folder


def _print_estimate(config: Config, state: PartialState) -> None:
    """Print how much memory the training probably needs, if it runs on GPUs."""
    if torch.cuda.is_available() and state.is_main_process:
        available = torch.cuda.get_device_properties(state.device).total_memory
        print("\n".join(start_lines(config, state.num_processes, available)), flush=True)


def parts_of(config: Config, mixture: Mixture) -> tuple[Mixture, Mixture | None]:
    """What is trained on, and what is validated on, if the configuration says so."""
    table = config.evaluation
    if table.mixture is not None:
        return mixture, mixture_of(config, table.mixture)
    return (mixture, None) if table.split is None else split(mixture, config.seed, table.split)


def mixture_of(config: Config, path: Path | None = None) -> Mixture:
    """Open the configuration's mixture, or another file's with the same data.

    Raises ConfigError if the file cannot be read, and MixtureError.
    """
    path = path or config.mixture
    try:
        file = MixtureFile.load(path)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from None
    settings = load_settings()
    store = Store(config.store or settings.store_uri, settings.moved_roots)
    return open_mixture(file, Locations(store, str(config.data or path.parent), config.output / "tables"))


def load_model(config: Config) -> tuple[PreTrainedModel, ProcessorMixin]:
    """Load model and processor. With LoRA alone and bf16, the base weights are in bf16; otherwise all are in float32.

    The processor gets a chat template that teaches the model to end its answers. Raises ConfigError.
    """
    table, dtype = config.model, weight_type(config)
    try:
        model = AutoModelForImageTextToText.from_pretrained(
            table.path, revision=table.revision, dtype=dtype, attn_implementation=table.attn_implementation
        )
    except (OSError, ValueError, ImportError) as error:
        line = str(error).strip().partition("\n")[0]
        raise ConfigError(f"model.path: {table.path} cannot be loaded: {line}") from None
    name_present_layers(model)
    return model, load_processor(config)


def run(path: Path, allow_changes: bool = False) -> None:
    """Train as a configuration file says, and print where the model lies. Raises StrataError."""
    config = load_config(path)
    folder = train(config, mixture_of(config), allow_changes)
    print(f"trained: {folder}; losses: {config.output / 'losses.jsonl'} and losses.png")


def estimate(path: Path, gpus: int) -> None:
    """Print how much memory each GPU needs for a training, without loading the model. Raises ConfigError."""
    if gpus < 1:
        raise ConfigError(f"--gpus: {gpus} is less than 1")
    print("\n".join(estimate_lines(load_config(path), gpus)))


def main() -> None:
    """Run the training job from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--allow-changes", action="store_true", help="continue a run also with other settings")
    parser.add_argument("--estimate", action="store_true", help="print the GPU memory that it needs, and stop")
    parser.add_argument("--gpus", type=int, default=8, help="the number of GPUs of the estimate")
    arguments = parser.parse_args()
    try:
        if arguments.estimate:
            return estimate(arguments.config, arguments.gpus)
        run(arguments.config, arguments.allow_changes)
    except StrataError as error:
        print(f"train: {error}", file=sys.stderr)
        raise SystemExit(code_of(error)) from None


if __name__ == "__main__":
    main()
