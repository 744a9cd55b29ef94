"""A byte-level BPE tokenizer with a chat template, trained on the corpus."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

__all__ = ["CHAT_TEMPLATE", "END", "PAD", "VOCABULARY_SIZE", "render_dialogue", "train_tokenizer"]

VOCABULARY_SIZE: Final = 4096
END: Final = "<|end|>"  # ends every turn and every document: the model's learned end token
PAD: Final = "<|pad|>"
_ROLES: Final = ("<|system|>", "<|user|>", "<|assistant|>")
CHAT_TEMPLATE: Final = (
    "{% for message in messages %}"
    "{% if message['content'] is string %}{% set content = message['content'] %}"
    "{% else %}{% set content = message['content'] | map(attribute='text') | join('') %}{% endif %}"
    "{{ '<|' + message['role'] + '|>' + content + '<|end|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def render_dialogue(question: str, answer: str) -> tuple[str, str]:
    """The text before the answer and the answer with its end token, as `CHAT_TEMPLATE` writes them."""
    return f"<|user|>{question}{END}<|assistant|>", f"{answer}{END}"


def train_tokenizer(texts: Iterable[str], folder: Path) -> PreTrainedTokenizerFast:
    """Train on `texts` and save into `folder`; the ids of the special tokens come first: end is 0, pad is 1."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        special_tokens=[END, PAD, *_ROLES],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END,
        eos_token=END,
        pad_token=PAD,
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHAT_TEMPLATE
    fast.save_pretrained(folder)
    return fast
