"""Tiny random BERTs that know a few words."""

from pathlib import Path

import torch
from transformers import BertConfig, BertModel, BertTokenizerFast

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def tokenizer(folder: Path, words: list[str]) -> BertTokenizerFast:
    """A tokeniser of whole words, whose vocabulary is in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join([*SPECIAL, *words]) + "\n")
    return BertTokenizerFast(str(folder / "vocab.txt"))


def bert(folder: Path, words: list[str], cls=BertModel, seed: int = 0, **settings) -> Path:
    """Folder of a model of one layer, of some class, with its tokeniser."""
    tokenizer(folder, words).save_pretrained(folder)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    sizes |= {"intermediate_size": 32, "max_position_embeddings": 64}
    torch.manual_seed(seed)
    config = BertConfig(vocab_size=len(SPECIAL) + len(words), **(sizes | settings))
    cls(config).eval().save_pretrained(folder)
    return folder
