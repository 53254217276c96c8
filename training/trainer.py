"""TRL's SFTTrainer with Strata's reader: batches from any step on, losses per task, and complete checkpoints."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import IterableDataset
from peft import LoraConfig
from torch import nn
from transformers import (
    PreTrainedModel,
    ProcessorMixin,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_callback import PrinterCallback
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling, SFTTrainer

from strata.data import Mixture, Sample, SampleReader
from strata.data.sources.conversations import IMAGE_TOKEN
from training.batches import Batch, Batches
from training.config import Config, ConfigError
from training.losses import LossLog

WHOLE = "whole"  # the file that is written last into a checkpoint, and so marks it as complete
SHOWN_STEPS = 20  # steps between two printed lines


class Collator:
    """Collates samples with TRL's collator, and adds "task_numbers" (N,): each sample's index in `tasks`."""

    def __init__(self, inner: DataCollatorForVisionLanguageModeling, tasks: Sequence[str]) -> None:
        self.inner, self.tasks = inner, list(tasks)

    def __call__(self, samples: Sequence[Sample]) -> Batch:
        batch: Batch = self.inner([example_of(sample) for sample in samples])
        batch["task_numbers"] = torch.tensor([self.tasks.index(sample.task) for sample in samples])
        return batch


def example_of(sample: Sample) -> dict[str, Any]:
    """Convert a sample to TRL's form. TRL puts one image before the first question; several have their own places."""
    if len(sample.images) < 2:
        return {"images": sample.images, "messages": sample.conversation}
    messages = [{**turn, "content": content_parts(turn["content"])} for turn in sample.conversation]
    return {"images": sample.images, "messages": messages}


def content_parts(text: str) -> list[dict[str, str]]:
    """Split a text at "<image>" into the content parts of TRL and OpenAI: {"type": "image"} or {"type": "text"}."""
    parts: list[dict[str, str]] = []
    for number, piece in enumerate(text.split(IMAGE_TOKEN)):
        parts += [{"type": "image"}] if number else []
        parts += [{"type": "text", "text": piece.strip("\n")}] if piece.strip() else []
    return parts


def tasks_of(mixture: Mixture) -> list[str]:
    """The mixture's tasks, sorted."""
    return sorted({share.task for share in mixture.shares})


class StageTrainer(SFTTrainer):
    """Trains on a mixture in one stage, with all tasks mixed.

    The constructor raises ConfigError if the mixture has fewer samples than a batch, or a module to freeze does not
    exist.
    """

    def __init__(self, model: PreTrainedModel, processor: ProcessorMixin, mixture: Mixture, config: Config) -> None:
        arguments = arguments_of(config, mixture)
        self._config, self._mixture, self._tasks = config, mixture, tasks_of(mixture)
        self._seen_batches = 0
        self._outputs: Any = None
        self.losses = LossLog(config.output)
        self._frozen = freeze(model, config.model.freeze)
        super().__init__(
            model=model,
            args=arguments,
            # TRL only looks at the first sample, to detect the kind of data; `Batches` gives the training data
            train_dataset=IterableDataset.from_generator(_examples, gen_kwargs={"mixture": mixture}),
            processing_class=processor,
            peft_config=_lora(config),
            callbacks=[_StepLog(self)],
        )
        self.remove_callback(PrinterCallback)
        self._sums = torch.zeros(len(self._tasks), 2, dtype=torch.float64, device=arguments.device)
        # SFTTrainer.compute_loss does not return the loss per token, so a hook keeps the model's output
        assert self.model is not None
        self.model.register_forward_hook(self._keep_outputs)

    def get_train_dataloader(self) -> Batches:  # type: ignore[override]
        """The batches of this rank, from the current step on."""
        arguments = self.args
        ranks = arguments.world_size
        batch_size = arguments.per_device_train_batch_size
        reader = SampleReader(self._mixture, arguments.seed, arguments.process_index, ranks, batch_size, drop_last=True)
        assert isinstance(self.data_collator, DataCollatorForVisionLanguageModeling)
        collator = Collator(self.data_collator, self._tasks)
        return Batches(reader, batch_size, collator, arguments.dataloader_num_workers, self._seen_batches)

    def train_from(self, checkpoint: Path | None) -> None:
        """Train to the end, from the beginning or from a checkpoint of this job."""
        # the number of batches seen determines the reader's position
        step = step_of(checkpoint) if checkpoint else 0
        self._seen_batches = step * self.args.gradient_accumulation_steps
        # steps after the checkpoint are trained and logged again
        if self.args.should_save:
            self.losses.rewind(step)
        self.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)

    def compute_loss(self, model: nn.Module, inputs: Batch, *args: Any, **kwargs: Any) -> Any:
        """Compute the loss, and add each sample's loss to the sum of its task."""
        # the trainer has set all modules to training mode; frozen ones shall not change their running statistics
        for module in self._frozen:
            module.eval()
        numbers = inputs.pop("task_numbers")
        loss = super().compute_loss(model, inputs, *args, **kwargs)
        # per sample: the sum of its tokens' negative log likelihoods, and the number of its tokens
        outputs, self._outputs = self._outputs, None
        sums = torch.stack([-outputs.log_probs.detach().sum(1), outputs.label_mask.sum(1)], dim=1)
        self._sums.index_add_(0, numbers, sums.to(self._sums))
        return loss

    def _keep_outputs(self, _module: nn.Module, _inputs: Any, outputs: Any) -> None:
        self._outputs = outputs

    def log_step(self) -> None:
        """Log the step that has ended: the mean loss of all its tokens, and of each task's tokens."""
        # sum over all ranks; only one process logs
        sums = self.accelerator.reduce(self._sums, "sum").tolist()
        self._sums.zero_()
        if not self.args.should_save:
            return
        # mean losses of the tasks that occurred in this step
        found = {task: pair for task, pair in zip(self._tasks, sums, strict=True) if pair[1]}
        tasks = {task: {"loss": loss / tokens, "tokens": int(tokens)} for task, (loss, tokens) in found.items()}
        total = sum(loss for loss, _ in found.values()) / max(1, sum(tokens for _, tokens in found.values()))
        rate = self.optimizer.param_groups[0]["lr"] if self.optimizer else None
        step = self.state.global_step
        self.losses.append({"step": step, "loss": total, "learning_rate": rate, "tasks": tasks})
        if step % SHOWN_STEPS == 0 or step == self.state.max_steps:
            shown = ", ".join(f"{task} {value['loss']:.3f}" for task, value in tasks.items())
            print(f"step {step} of {self.state.max_steps}: loss {total:.4f} ({shown})", flush=True)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            (self._config.output / f"checkpoint-{self.state.global_step}" / WHOLE).touch()


class _StepLog(TrainerCallback):
    def __init__(self, trainer: StageTrainer) -> None:
        self.trainer = trainer

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.trainer.log_step()


def _examples(mixture: Mixture) -> Iterator[dict[str, Any]]:
    return map(example_of, SampleReader(mixture))


def arguments_of(config: Config, mixture: Mixture) -> SFTConfig:
    """Convert the configuration to TRL's. Raises ConfigError if the mixture has fewer samples than a batch."""
    table = config.optimizer
    arguments = SFTConfig(
        output_dir=str(config.output),
        per_device_train_batch_size=table.batch_size,
        gradient_accumulation_steps=table.accumulation,
        learning_rate=table.learning_rate,
        lr_scheduler_type=table.schedule,
        warmup_steps=table.warmup_steps,
        weight_decay=table.weight_decay,
        adam_beta1=table.beta1,
        adam_beta2=table.beta2,
        max_grad_norm=table.largest_gradient,
        bf16=config.precision == "bf16",
        gradient_checkpointing=config.gradient_checkpointing,
        max_length=config.longest,
        assistant_only_loss=True,
        seed=config.seed,
        dataloader_num_workers=config.readers,
        ignore_data_skip=True,  # `Batches` begins at the resumed step by itself
        save_steps=config.save_steps,
        save_total_limit=config.keep,
        max_steps=config.steps or 1,
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    # a length in epochs is converted to steps, since `Batches` has no length
    batch = table.batch_size * arguments.world_size
    if len(mixture) < batch:
        raise ConfigError(f"{config.mixture}: a mixture of {len(mixture)} samples does not fill a batch of {batch}")
    if config.epochs is not None:
        arguments.max_steps = max(1, round(config.epochs * (len(mixture) // batch) / table.accumulation))
    return arguments


def _lora(config: Config) -> LoraConfig | None:
    table = config.lora
    if table is None:
        return None
    names = table.target_modules
    return LoraConfig(
        r=table.rank,
        lora_alpha=table.alpha,
        lora_dropout=table.dropout,
        target_modules=names if isinstance(names, str) else list(names),
        task_type="CAUSAL_LM",
    )


def freeze(model: nn.Module, names: Sequence[str]) -> list[nn.Module]:
    """Freeze the modules whose names end with one of `names`; return them. Raises ConfigError for an unknown name."""
    frozen = []
    for name in names:
        found = [module for path, module in model.named_modules() if f".{path}".endswith(f".{name}")]
        if not found:
            raise ConfigError(f"model.freeze: the model has no module {name!r}")
        frozen += found
    for module in frozen:
        module.requires_grad_(False)
    return frozen


def step_of(checkpoint: Path) -> int:
    """The step in the name of a checkpoint's folder."""
    return int(checkpoint.name.removeprefix("checkpoint-"))


def last_checkpoint(output: Path) -> Path | None:
    """The newest complete checkpoint, or None."""
    whole = [path.parent for path in output.glob(f"checkpoint-*/{WHOLE}")]
    return max(whole, key=step_of, default=None)
