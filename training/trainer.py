"""TRL's SFTTrainer with Strata's reader: batches from any step on, losses per task, and complete checkpoints."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from datasets import IterableDataset
from torch import nn
from torch.utils.data import DataLoader
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

from strata.data import Mixture, SampleReader, SkipLimit, Skipped
from training.batches import Batch, Batches, Grouped, sample_length, text_length
from training.config import Config, ConfigError
from training.inputs.collation import Collator, limit_images
from training.inputs.examples import example_of
from training.inputs.lengths import check_longest
from training.losses import LossLog
from training.merging import save_merged
from training.optimizer import settings_of_groups, use_settings
from training.parts import adapter_of, add_adapters, freeze, parameter_groups, untrained_statistics
from training.processes import on_cpu
from training.reporting import Figures, figures_of, reporters_of, tensorboard
from training.skips import SkipLog

WHOLE = "whole"  # the file that is written last into a checkpoint, and so marks it as complete
SHOWN_STEPS = 20  # steps between two printed lines


def tasks_of(*mixtures: Mixture | None) -> list[str]:
    """The tasks of all mixtures, sorted."""
    return sorted({share.task for mixture in mixtures if mixture for share in mixture.shares})


class StageTrainer(SFTTrainer):
    """Trains on a mixture in one stage, with all tasks mixed.

    The constructor raises ConfigError if a mixture has fewer samples than a batch, a module that the configuration
    names does not exist, or no image fits `longest`.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        processor: ProcessorMixin,
        mixture: Mixture,
        config: Config,
        validation: Mixture | None = None,
    ) -> None:
        arguments = arguments_of(config, mixture, validation)
        self._config, self._mixture, self._tasks = config, mixture, tasks_of(mixture, validation)
        self._validation = validation
        self._seen_batches = 0
        self._outputs: Any = None
        # places of samples that were taken by others, and what could not be read for them since the last step
        self._replaced, self._skipped = 0, list[list[Skipped]]()
        self.skips = SkipLog(config.output)
        self._max_pixels = limit_images(processor, config)
        check_longest(processor, config)
        self.losses, self.validations = LossLog(config.output), LossLog(config.output, "validation.jsonl")
        self._frozen = freeze(model, config.model.freeze)
        # adapters beside modules that are trained whole lie in the model itself; else PEFT's model holds them
        whole = config.lora if config.lora and config.lora.full else None
        self._tuner = add_adapters(model, whole) if whole else None
        super().__init__(
            model=model,
            args=arguments,
            # TRL only looks at the first sample, to detect the kind of data; `Batches` gives the training data
            train_dataset=IterableDataset.from_generator(_examples, gen_kwargs={"mixture": mixture}),
            processing_class=processor,
            peft_config=adapter_of(model, config.lora) if config.lora and whole is None else None,
            callbacks=[_StepLog(self)],
        )
        self.remove_callback(PrinterCallback)
        self._sums = torch.zeros(len(self._tasks), 2, dtype=torch.float64, device=arguments.device)
        # SFTTrainer.compute_loss does not return the loss per token, so a hook keeps the model's output
        assert isinstance(self.model, nn.Module)
        self._frozen += untrained_statistics(self.model)
        self.model.register_forward_hook(self._keep_outputs)

    def get_train_dataloader(self) -> Batches:  # type: ignore[override]
        """The batches of this rank, from the current step on."""
        arguments, group = self.args, self._config.length_group
        batch_size = arguments.per_device_train_batch_size
        reader = self._reader(self._mixture, batch_size * group)
        return Batches(
            reader,
            batch_size,
            self._collator(reader),
            arguments.dataloader_num_workers,
            self._seen_batches,
            group,
            sample_length(self.processing_class),
        )

    def _reader(self, mixture: Mixture, batch_size: int) -> SampleReader:
        arguments = self.args
        ranks, rank = arguments.world_size, arguments.process_index
        limit, on_error = SkipLimit(self._config.skip_limit), self._config.on_error
        return SampleReader(mixture, arguments.seed, rank, ranks, batch_size, True, on_error, limit)

    def _collator(self, reader: SampleReader) -> Collator:
        assert isinstance(self.data_collator, DataCollatorForVisionLanguageModeling)
        example = partial(example_of, windows=self._config.windows)
        longest = self._config.longest
        return Collator(self.data_collator, self._tasks, example, reader, longest, self._max_pixels)

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """Create AdamW, with a group of parameters for each part that has a learning rate of its own."""
        table, trained = self._config.optimizer, model or self.model
        assert isinstance(trained, nn.Module)
        if self.optimizer is None and table.rates:
            decayed = self.get_decay_parameter_names(trained)
            groups = parameter_groups(trained, decayed, table.learning_rate, table.rates, table.weight_decay)
            kind, arguments = self.get_optimizer_cls_and_kwargs(self.args, None)
            self.optimizer = kind(groups, **arguments)
        optimizer = super().create_optimizer(model)
        self._groups = settings_of_groups(optimizer)
        return optimizer

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """Load the state of a checkpoint, but not its learning rates, betas and weight decay: the configuration's hold.

        torch's state of an optimizer and of a schedule contains these too, and would undo an allowed change of them.
        """
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            assert self.optimizer is not None and self.lr_scheduler is not None
            use_settings(self.optimizer, self.lr_scheduler, self._groups)

    def train_from(self, checkpoint: Path | None) -> None:
        """Train to the end, from the beginning or from a checkpoint of this job."""
        # the number of batches seen determines the reader's position
        step = step_of(checkpoint) if checkpoint else 0
        self._seen_batches = step * self.args.gradient_accumulation_steps
        # steps after the checkpoint are trained and logged again
        self._replaced = self.losses.read()[step - 1].get("skipped", 0) if step else 0
        if self.args.should_save:
            self.losses.rewind(step)
            self.skips.rewind(step)
            self.validations.rewind(step)
            if "tensorboard" in reporters_of(self._config):
                self.add_callback(tensorboard(self._config, step))
        self.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)

    def compute_loss(self, model: nn.Module, inputs: Batch, *args: Any, **kwargs: Any) -> Any:
        """Compute the loss, and add each sample's loss to the sum of its task."""
        # the trainer has set all modules to training mode; frozen ones shall not change their running statistics
        for module in self._frozen:
            module.eval()
        numbers, skipped = inputs.pop("task_numbers"), inputs.pop("skipped")
        self._skipped += skipped if model.training else []
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
        line = {**self._taken_sums(), **self._taken_skips()}
        if not self.args.should_save:
            return
        step = self.state.global_step
        self.losses.append({**line, **self._learning_rates()})
        self._report(figures_of({**line, **self._learning_rates()}))
        if step % SHOWN_STEPS == 0 or step == self.state.max_steps:
            print(f"step {step} of {self.state.max_steps}: loss {_shown(line)}", flush=True)

    def validates(self, step: int) -> bool:
        """Whether the loss on the validation mixture is computed after this step."""
        due = step % self._config.evaluation.every == 0 or step == self.state.max_steps
        return self._validation is not None and due

    def validate(self) -> None:
        """Compute the loss on the validation mixture, and log it like a step's."""
        assert self._validation is not None and self.model is not None
        batch_size = self.args.per_device_train_batch_size
        reader = self._reader(self._validation, batch_size)
        collate = Grouped(self._collator(reader), text_length, batch_size, 1)
        # drawing from torch's default generator would change the dropout of the steps that follow
        generator = torch.Generator()
        loader = DataLoader(reader, batch_size, collate_fn=collate, drop_last=True, generator=generator)
        self.model.eval()
        for (batch,) in loader:
            with torch.no_grad(), self.compute_loss_context_manager():
                self.compute_loss(self.model_wrapped, self._prepare_inputs(batch))
        self.model.train()
        line = self._taken_sums()
        if self.args.should_save:
            self.validations.append(line)
            self._report(figures_of(line, "eval_"))
            print(f"validation at step {line['step']}: loss {_shown(line)}", flush=True)

    def _taken_sums(self) -> dict[str, Any]:
        """The mean losses since the last call, over all ranks: of all tokens, and of each task's."""
        sums = self.accelerator.reduce(self._sums, "sum").tolist()
        self._sums.zero_()
        # only the tasks that occurred
        found = {task: pair for task, pair in zip(self._tasks, sums, strict=True) if pair[1]}
        tasks = {task: {"loss": loss / tokens, "tokens": int(tokens)} for task, (loss, tokens) in found.items()}
        total = sum(loss for loss, _ in found.values()) / max(1, sum(tokens for _, tokens in found.values()))
        return {"step": self.state.global_step, "loss": total, "tasks": tasks}

    def _taken_skips(self) -> dict[str, Any]:
        """How many samples could not be read so far, on all ranks, if any. Raises TooManySkipped."""
        arguments, step = self.args, self.state.global_step
        count = torch.tensor([len(self._skipped)], device=arguments.device)
        new = int(self.accelerator.reduce(count, "sum").item())
        if new:
            # gather what they are from all ranks, and list it
            found = [one for group in gather_object(self._skipped) for one in group]
            self._skipped = []
            self._replaced += new
            if arguments.should_save:
                self.skips.append(step, found)
            read = step * arguments.gradient_accumulation_steps * arguments.train_batch_size * arguments.world_size
            SkipLimit(self._config.skip_limit).check(self._replaced, read, f"{found[0].reason} (see {self.skips.path})")
        return {"skipped": self._replaced} if self._replaced else {}

    def _learning_rates(self) -> dict[str, Any]:
        """The learning rate of the rest of the model, and that of each part with one of its own."""
        groups = self.optimizer.param_groups if self.optimizer else []
        rates = {group.get("part", ""): group["lr"] for group in groups}
        first = rates.pop("", groups[0]["lr"] if groups else None)
        return {"learning_rate": first} | ({"rates": rates} if rates else {})

    def _report(self, figures: Figures) -> None:
        """Send figures to the reporters, with TRL's own of this step (entropy, accuracy of tokens)."""
        mode = "eval" if "eval_loss" in figures else "train"
        prefix = "eval_" if mode == "eval" else ""
        means = {f"{prefix}{name}": sum(values) / len(values) for name, values in self._metrics[mode].items()}
        self._metrics[mode].clear()
        self.control = self.callback_handler.on_log(self.args, self.state, self.control, {**figures, **means})

    def save(self, folder: Path) -> None:
        """Save the trained model: the adapters, or the whole model with adapters merged into it."""
        if self._tuner is None:
            self.save_model(str(folder))
        else:
            state = self.accelerator.get_state_dict(self.model_wrapped)
            if self.args.should_save:
                save_merged(self.accelerator.unwrap_model(self.model), state, folder)

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
        if self.trainer.validates(state.global_step):
            self.trainer.validate()


def _shown(line: dict[str, Any]) -> str:
    tasks = ", ".join(f"{task} {value['loss']:.3f}" for task, value in line["tasks"].items())
    return f"{line['loss']:.4f} ({tasks})"


def _examples(mixture: Mixture) -> Iterator[dict[str, Any]]:
    return map(example_of, SampleReader(mixture, limit=SkipLimit(1.0)))


def arguments_of(config: Config, mixture: Mixture, validation: Mixture | None = None) -> SFTConfig:
    """Convert the configuration to TRL's. Raises ConfigError if a mixture has fewer samples than a batch."""
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
        use_cpu=on_cpu(),
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
        report_to=[name for name in reporters_of(config) if name != "tensorboard"] or "none",
        disable_tqdm=True,
    )
    # a length in epochs is converted to steps, since `Batches` has no length
    batch = table.batch_size * arguments.world_size
    _check_fills(str(config.mixture), mixture, batch * config.length_group)
    if validation is not None:
        _check_fills("evaluation", validation, batch)
    if config.epochs is not None:
        batches = len(mixture) // (batch * config.length_group) * config.length_group
        arguments.max_steps = max(1, round(config.epochs * batches / table.accumulation))
    return arguments


def _check_fills(name: str, mixture: Mixture, batch: int) -> None:
    if len(mixture) < batch:
        raise ConfigError(f"{name}: a mixture of {len(mixture)} samples does not fill a batch of {batch}")


def step_of(checkpoint: Path) -> int:
    """The step in the name of a checkpoint's folder."""
    return int(checkpoint.name.removeprefix("checkpoint-"))


def last_checkpoint(output: Path) -> Path | None:
    """The newest complete checkpoint, or None."""
    whole = [path.parent for path in output.glob(f"checkpoint-*/{WHOLE}")]
    return max(whole, key=step_of, default=None)
