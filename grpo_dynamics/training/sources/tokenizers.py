"""A tokenizer with one token per character: what a text is made of is what the model sees, and nothing is lost."""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

PAD, BOS, EOS = "<pad>", "<bos>", "<eos>"


def character_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """Return a tokenizer whose tokens are the characters of some texts, and three special ones.

    Tokens 0, 1, 2 are pad, the beginning (put in front of every text) and the end; then come the characters in the
    order of their code points. There is no "unknown": a character that is no token raises an error.

    Args:
        texts: prompts and answers; between them they hold at least one character.

    Raises:
        ValueError: if there is no character in the texts.

    >>> tokenizer = character_tokenizer(["3+4=", "7"])
    >>> tokenizer("4+7=")["input_ids"], tokenizer.decode([5, 3, 7])
    ([1, 5, 3, 6, 7], '4+=')
    """
    characters = sorted(set().union(*texts))
    if not characters:
        raise ValueError("texts must hold at least one character, got none")
    vocabulary = {token: number for number, token in enumerate([PAD, BOS, EOS, *characters])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("(?m)."), "isolated")  # (?m): the dot takes newlines as well
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens([PAD, BOS, EOS])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, vocabulary[BOS])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
