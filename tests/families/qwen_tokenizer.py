"""A stock Qwen2 tokenizer with a vocabulary learned from a few sentences: what Qwen2.5-VL and Qwen3 read with."""

from __future__ import annotations

import json
from typing import Any

_SPECIAL = ("<|im_start|>", "<|im_end|>", "<think>", "</think>")
# Qwen3's, without tools and earlier thoughts.
_CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)


def make_qwen_tokenizer(max_tokens: int, *texts: str) -> Any:
    """Returns a byte-level tokenizer for which every word of the texts is one token; others are spelled in bytes."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import Qwen2Tokenizer

    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = Qwen2Tokenizer().backend_tokenizer.pre_tokenizer
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    # Large enough that nothing is left to merge.
    trainer = trainers.BpeTrainer(vocab_size=2000, initial_alphabet=alphabet, show_progress=False)
    learner.train_from_iterator(["user assistant", *texts], trainer)
    model = json.loads(learner.to_str())["model"]
    vocab = model["vocab"]
    for token in ("<|endoftext|>", *_SPECIAL):
        vocab[token] = len(vocab)
    tokenizer = Qwen2Tokenizer(
        vocab=vocab,
        merges=[tuple(pair) for pair in model["merges"]],
        extra_special_tokens=list(_SPECIAL),
        model_max_length=max_tokens,
    )
    tokenizer.chat_template = _CHAT_TEMPLATE
    return tokenizer
