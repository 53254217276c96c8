"""Every trained answer ends with the token that ends a turn, so that the model learns to stop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)
from trl.chat_template_utils import is_chat_template_stop_token_trained
from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

from training.config import ConfigError
from training.inputs.chat_templates import use_training_template

# the template of llava-hf/llava-1.5-7b-hf: it marks the answers, and leaves out the token that ends them
HUB_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] != 'system' %}{{ message['role'].upper() + ': '}}{% endif %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\n' }}{% endfor %}"
    "{% if message['role'] != 'assistant' %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}{{ content['text'] + ' '}}"
    "{% endfor %}{% else %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}"
    "{% generation %}{{ content['text'] + ' '}}{% endgeneration %}{% endfor %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
SYSTEM = "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, "
SYSTEM += "detailed, and polite answers to the user's questions."
ANSWERS = {"red": "a red square", "blue": "it is blue"}


def llava_processor() -> LlavaProcessor:
    """A processor as LLaVA-1.5's, with a small vocabulary: words split at "▁" as Llama's tokenizer does."""
    bpe = Tokenizer(models.BPE(unk_token="<unk>"))
    bpe.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Metaspace(), pre_tokenizers.Punctuation()])
    bpe.decoder = decoders.Metaspace()
    texts = [SYSTEM, "USER: What is it? ASSISTANT: ", *ANSWERS.values()]
    special = ["<unk>", "<s>", "</s>", "<image>", "<pad>"]
    bpe.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=160, special_tokens=special, show_progress=False))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        extra_special_tokens={"image_token": "<image>"},
    )
    return LlavaProcessor(
        CLIPImageProcessor(size={"height": 28, "width": 28}, do_center_crop=False),
        tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=HUB_TEMPLATE,
    )


def example(*turns: str, colour: str = "red") -> dict[str, Any]:
    roles = ("user", "assistant") * len(turns)
    messages = [{"role": role, "content": turn} for role, turn in zip(roles, turns, strict=False)]
    return {"images": [Image.new("RGB", (28, 28), colour)], "messages": messages}


@pytest.fixture
def processor() -> LlavaProcessor:
    """LLaVA-1.5's processor with the template to train it with."""
    found = llava_processor()
    assert not is_chat_template_stop_token_trained(found)
    use_training_template(found)
    return found


def test_the_prompt_is_llavas(processor: LlavaProcessor) -> None:
    question: Any = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is it?"}]}]
    asked = processor.apply_chat_template(question, add_generation_prompt=True)
    assert asked == f"<s>{SYSTEM} USER: <image>\nWhat is it? ASSISTANT:"
    answered: Any = [*question, {"role": "assistant", "content": [{"type": "text", "text": "A bee."}]}]
    again: Any = [*answered, {"role": "user", "content": [{"type": "text", "text": "Why?"}]}]
    assert processor.apply_chat_template(again) == f"{asked} A bee.</s>USER: Why? "
    own: Any = [{"role": "system", "content": [{"type": "text", "text": "Be brief."}]}, *question]
    assert processor.apply_chat_template(own) == "<s>Be brief. USER: <image>\nWhat is it? "


def test_the_labels_are_the_answers_and_their_ends(processor: LlavaProcessor) -> None:
    collate = DataCollatorForVisionLanguageModeling(processor, assistant_only_loss=True)
    batch = collate([example("What is it?", "a red square", "What?", "it is blue"), example("What is it?", "red")])
    told = [processor.tokenizer.decode(labels[labels >= 0]) for labels in batch["labels"]]
    assert [text.replace(" ", "") for text in told] == ["aredsquare</s>itisblue</s>", "red</s>"]
    assert (batch["input_ids"] == processor.image_token_id).sum(1).tolist() == [4, 4]
    assert (batch["input_ids"][:, 0] == processor.tokenizer.bos_token_id).all()


def test_a_tiny_llava_learns_to_stop(processor: LlavaProcessor) -> None:
    torch.manual_seed(0)
    shape: Any = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    tokenizer = processor.tokenizer
    model: Any = LlavaForConditionalGeneration(
        LlavaConfig(
            vision_config=CLIPVisionConfig(**shape, image_size=28, patch_size=14),
            text_config=LlamaConfig(**shape, num_key_value_heads=2, vocab_size=len(tokenizer)),
            image_token_index=processor.image_token_id,
            vision_feature_layer=-1,
        )
    )
    collate = DataCollatorForVisionLanguageModeling(processor, assistant_only_loss=True)
    batch = collate([example("What is it?", answer, colour=colour) for colour, answer in ANSWERS.items()])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(40):
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    content = [{"type": "image", "image": Image.new("RGB", (28, 28), "blue")}, {"type": "text", "text": "What is it?"}]
    asked: Any = [[{"role": "user", "content": content}]]
    prompt: Any = processor.apply_chat_template(
        asked, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    told = model.generate(**prompt, max_new_tokens=20, do_sample=False, eos_token_id=tokenizer.eos_token_id)
    answer = told[0, prompt["input_ids"].shape[1] :]
    assert answer[-1] == tokenizer.eos_token_id and len(answer) < 20
    assert tokenizer.decode(answer, skip_special_tokens=True).strip() == "it is blue"


def test_a_template_that_never_stops_is_refused(tmp_path: Path) -> None:
    processor = llava_processor()
    processor.chat_template = "{% for m in messages %}{{ m['content'][0]['text'] }}{% endfor %}"
    with pytest.raises(ConfigError, match="the model's chat template does not teach the model to end"):
        use_training_template(processor)
    given = tmp_path / "own.jinja"
    with pytest.raises(ConfigError, match=r"own\.jinja: No such file"):
        use_training_template(processor, given)
    given.write_text(HUB_TEMPLATE)
    with pytest.raises(ConfigError, match=r"own\.jinja does not teach"):
        use_training_template(processor, given)
    given.write_text(HUB_TEMPLATE.replace("content['text'] + ' '}}{% endgen", "content['text'] + '</s>'}}{% endgen"))
    use_training_template(processor, given)
    assert processor.chat_template == given.read_text()
