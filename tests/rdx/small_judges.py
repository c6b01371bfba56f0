"""Tiny random language models that can be asked yes or no, with tokenizers of their kinds."""

from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

from tests.rdx.small_models import WORDS

SPLIT = Regex(r"\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+")
MARKS = ["<|im_start|>", "<|im_end|>", "<|endoftext|>"]


def qwen(folder: Path, settings: type, model: type) -> str:
    """A tiny model of Qwen's kind, whose tokens are learned from such prompts."""
    made = Tokenizer(models.BPE())
    apart, bytewise = pre_tokenizers.Split(SPLIT, "isolated"), pre_tokenizers.ByteLevel
    made.pre_tokenizer = pre_tokenizers.Sequence([apart, bytewise(False, use_regex=False)])
    made.decoder = decoders.ByteLevel()
    lines = [*WORDS, "yes no Query Document", *(f"{word}{end}" for word in WORDS for end in ".?!")]
    made.train_from_iterator(
        [f"{line}\nquery: document: Relevance:\n" for line in lines] * 4,
        trainers.BpeTrainer(
            vocab_size=600,
            special_tokens=MARKS,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<|endoftext|>")
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "head_dim": 16}
    shape |= {"num_key_value_heads": 1, "intermediate_size": 32, "initializer_range": 0.3}
    shape |= {"vocab_size": len(tokenizer), "max_position_embeddings": 1024}
    model(settings(**shape)).save_pretrained(folder)
    return str(folder)


def t5(folder: Path) -> str:
    """A tiny T5 whose tokenizer ends texts by </s>, and knows the two words."""
    words = [*WORDS, "true", "false", "Query", "Document", "Relevant"]
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)]
    pieces = [(s, 0.0) for s in ("<pad>", "</s>", "<unk>")] + [("▁", -4.0)]
    known = [*(f"▁{word}" for word in words), *letters, *":?.!,"]
    pieces += [(piece, -2.0 - i / 100) for i, piece in enumerate(known)]
    made = Tokenizer(models.Unigram(pieces, unk_id=2))
    made.pre_tokenizer, made.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    made.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    special = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, **special)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    shape = {"d_model": 32, "d_kv": 16, "d_ff": 32, "num_layers": 2, "num_heads": 2}
    settings = T5Config(
        **shape, vocab_size=len(tokenizer), decoder_start_token_id=0, initializer_factor=3.0
    )
    T5ForConditionalGeneration(settings).save_pretrained(folder)
    return str(folder)
