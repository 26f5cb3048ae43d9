"""A stock Gemma tokenizer with a vocabulary built here: what Lumina 2 and Sana read with."""

from __future__ import annotations

import string
from typing import Any


def make_gemma_tokenizer(max_tokens: int) -> Any:
    """Returns a tokenizer that spells in letters behind `<bos>`; a run of other characters is one unknown token."""
    from transformers import GemmaTokenizerFast

    pieces = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁", *string.ascii_lowercase]
    vocab = {piece: index for index, piece in enumerate(pieces)}
    return GemmaTokenizerFast(vocab=vocab, merges=[], add_bos_token=True, model_max_length=max_tokens)
