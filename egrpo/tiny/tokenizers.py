"""The two small tokenizers of `tiny-flux-shapes`, which know the words of the shapes world.

They are stock `CLIPTokenizer` and `T5TokenizerFast` objects with vocabularies of our own. A word of the
world is one token; other words are spelled in letters (CLIP) or become the unknown token (T5).
"""

import string
from itertools import pairwise

from transformers import CLIPTokenizer, T5TokenizerFast

from egrpo.tiny.captions import COLOURS, RELATIONS, SHAPES

MAX_TOKENS = 10  # the longest caption has eight words, a start and an end
_WORDS = ("a", "an", *COLOURS, *SHAPES, *sorted({word for relation in RELATIONS for word in relation.split()}))


def make_clip_tokenizer() -> CLIPTokenizer:
    """Returns a byte-pair tokenizer whose merges build the words of the world from their letters."""
    letters = list(string.ascii_lowercase + string.digits + string.punctuation)
    vocab = ["<|startoftext|>", "<|endoftext|>", *letters, *(letter + "</w>" for letter in letters)]
    merges: list[tuple[str, str]] = []
    for word in _WORDS:
        while len(pieces := _merged(word, merges)) > 1:
            merges.append((pieces[0], pieces[1]))
            vocab.append(pieces[0] + pieces[1])
    return CLIPTokenizer(
        vocab={token: index for index, token in enumerate(vocab)},
        merges=merges,
        model_max_length=MAX_TOKENS,
    )


def _merged(word: str, merges: list[tuple[str, str]]) -> list[str]:
    """Returns the pieces of a word under byte-pair merges: always the earliest merge that applies."""
    pieces = [*word[:-1], word[-1] + "</w>"]
    while applicable := [pair for pair in merges if pair in pairwise(pieces)]:
        at = list(pairwise(pieces)).index(applicable[0])
        pieces[at : at + 2] = ["".join(applicable[0])]
    return pieces


def make_t5_tokenizer() -> T5TokenizerFast:
    """Returns a unigram tokenizer with one piece for each word of the world."""
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -8.0), *((f"▁{word}", -2.0) for word in _WORDS)]
    return T5TokenizerFast(vocab=pieces, extra_ids=0, model_max_length=MAX_TOKENS)
