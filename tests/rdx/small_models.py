"""Tiny random models of many families, each with a tokeniser as its kind has it."""

from pathlib import Path

import torch
import transformers as t
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

WORDS = "river engine garden planet violin market stone reed kelp onyx amber basil".split()
PAIRS = [
    ("river engine", "garden planet violin river market"),
    ("stone", "stone reed"),
    ("kelp onyx", "engine engine garden reed kelp onyx river stone planet violin amber"),
    ("violin", "market"),
]
SHAPE = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 128,
    "initializer_range": 0.5,
}
CLS = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
ROBERTA = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
ROBERTA |= {"cls_token": "<s>", "sep_token": "</s>"}


def wordpiece() -> t.PreTrainedTokenizerFast:
    """[CLS] q [SEP] p [SEP], with types of tokens; letters are known, in words, too."""
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)]
    vocabulary = [*CLS.values(), *WORDS, *letters, *(f"##{c}" for c in letters)]
    made = Tokenizer(models.WordPiece({w: i for i, w in enumerate(vocabulary)}, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return t.PreTrainedTokenizerFast(tokenizer_object=made, **CLS)


def bytelevel(roberta: bool = False, **special: str) -> t.PreTrainedTokenizerFast:
    """Byte-level BPE: of RoBERTa, <s> q </s></s> p </s>; else of a decoder, q p."""
    known = [*dict.fromkeys(ROBERTA.values())] if roberta else [special["eos_token"]]
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        [" ".join(WORDS)] * 3,
        trainers.BpeTrainer(
            vocab_size=400, special_tokens=known, initial_alphabet=alphabet, show_progress=False
        ),
    )
    if roberta:
        made.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>",
            pair="<s> $A </s> </s> $B </s>",
            special_tokens=[("<s>", 0), ("</s>", 2)],
        )
        special = ROBERTA | special
    return t.PreTrainedTokenizerFast(tokenizer_object=made, **special)


def debertas() -> t.DebertaV2Tokenizer:
    """DeBERTa's own class: a Unigram model, [CLS] q [SEP] p [SEP] with types of tokens."""
    pieces = [*(f"▁{word}" for word in WORDS), *map(chr, range(ord("a"), ord("z") + 1)), "▁"]
    special = ["[PAD]", "[CLS]", "[SEP]", "[UNK]"]
    scores = [(s, 0.0) for s in special] + [(p, -2.0 - i / 100) for i, p in enumerate(pieces)]
    return t.DebertaV2Tokenizer(vocab=scores, unk_id=3)


def llamas() -> t.LlamaTokenizer:
    """Llama's own class: BPE of words, letters and bytes, <s> q <s> p."""
    vocabulary = {"<unk>": 0, "<s>": 1, "</s>": 2} | {f"<0x{i:02X}>": 3 + i for i in range(256)}
    letters = [*map(chr, range(ord("a"), ord("z") + 1)), "▁", "Q", "P", ":", "?"]
    begun = dict.fromkeys(f"▁{word}"[:i] for word in WORDS for i in range(2, len(word) + 2))
    vocabulary |= {piece: 259 + i for i, piece in enumerate([*letters, *begun])}
    merges = [(piece[:-1], piece[-1]) for piece in begun]
    return t.LlamaTokenizer(vocab=vocabulary, merges=merges, add_bos_token=True)


def sentencepiece(end: bool = False, left: bool = False) -> t.PreTrainedTokenizerFast:
    """A Unigram model: <s> q </s></s> p </s>; `end`: q </s> p </s>; `left`: <cls> comes last."""
    pieces = [f"▁{word}" for word in WORDS] + [chr(c) for c in range(ord("a"), ord("z") + 1)]
    special = ["<s>", "<pad>", "</s>", "<unk>", "<sep>", "<cls>"]
    scores = [(s, 0.0) for s in special] + [("▁", -4.0)]
    scores += [(p, -2.0 - 0.01 * i) for i, p in enumerate(pieces)]
    made = Tokenizer(models.Unigram(scores, unk_id=3))
    made.normalizer = normalizers.NFKC()
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    single, pair = "<s> $A </s>", "<s> $A </s> </s> $B </s>"
    if end:
        single, pair = "$A </s>", "$A </s> $B </s>"
    if left:
        single, pair = "$A <sep> <cls>:2", "$A <sep> $B:1 <sep>:1 <cls>:2"
    made.post_processor = processors.TemplateProcessing(
        single=single,
        pair=pair,
        special_tokens=[(s, i) for i, s in enumerate(special)],
    )
    tokens = ROBERTA | ({"sep_token": "<sep>", "cls_token": "<cls>"} if left else {})
    side = "left" if left else "right"
    return t.PreTrainedTokenizerFast(tokenizer_object=made, padding_side=side, **tokens)


LLAMA = {"num_key_value_heads": 2, "bos_token_id": 0, "eos_token_id": 0}
XLNET = {"d_model": 16, "n_layer": 2, "n_head": 2, "d_inner": 32, "pad_token_id": 1}
T5 = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2, "eos_token_id": 2}
BART = {"d_model": 16, "encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 32}
BART |= {"decoder_ffn_dim": 32, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
END = {"eos_token": "<|end|>", "bos_token": "<|end|>"}
# Family -> configuration, what it has beside SHAPE, tokeniser, its settings.
FAMILIES = {
    "bert": (t.BertConfig, {}, wordpiece, {}),
    "electra": (t.ElectraConfig, {"embedding_size": 8}, wordpiece, {}),
    "albert": (t.AlbertConfig, {"embedding_size": 8}, wordpiece, {}),
    "modernbert": (
        t.ModernBertConfig,
        {"local_attention": 8, "cls_token_id": 2, "sep_token_id": 3, "pad_token_id": 0},
        wordpiece,
        {},
    ),
    "deberta-v2": (
        t.DebertaV2Config,
        {"relative_attention": True, "position_biased_input": False, "pos_att_type": "p2c|c2p"},
        wordpiece,
        {},
    ),
    "deberta-v3": (
        t.DebertaV2Config,
        {
            "relative_attention": True,
            "position_biased_input": False,
            "pos_att_type": "p2c|c2p",
            "position_buckets": 4,
            "norm_rel_ebd": "layer_norm",
            "share_att_key": True,
            "type_vocab_size": 0,
            "max_relative_positions": -1,
        },
        debertas,
        {},
    ),  # fmt: skip
    "distilbert": (
        t.DistilBertConfig,
        {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32},
        wordpiece,
        {},
    ),
    "roberta": (
        t.RobertaConfig,
        {"pad_token_id": 1, "type_vocab_size": 1},
        bytelevel,
        {"roberta": True},
    ),
    "xlm-roberta": (
        t.XLMRobertaConfig,
        {"pad_token_id": 1, "type_vocab_size": 1},
        sentencepiece,
        {},
    ),
    "mpnet": (t.MPNetConfig, {"pad_token_id": 1}, sentencepiece, {}),
    "xlnet": (t.XLNetConfig, XLNET, sentencepiece, {"left": True}),
    "llama": (
        t.LlamaConfig,
        LLAMA | {"pad_token_id": 0},
        bytelevel,
        {**END, "pad_token": "<|end|>"},
    ),
    "llama without padding": (t.LlamaConfig, LLAMA, bytelevel, END),
    "llama that pads otherwise": (
        t.LlamaConfig,
        LLAMA | {"pad_token_id": 5},
        bytelevel,
        {**END, "pad_token": "<|end|>"},
    ),
    "llama of its class": (
        t.LlamaConfig,
        LLAMA | {"bos_token_id": 1, "eos_token_id": 2},
        llamas,
        {},
    ),
    "qwen2": (t.Qwen2Config, LLAMA, bytelevel, {"eos_token": "<|endoftext|>"}),
    "qwen3": (t.Qwen3Config, LLAMA | {"head_dim": 8}, bytelevel, {**END, "padding_side": "left"}),
    "gpt2": (t.GPT2Config, {"bos_token_id": 0, "eos_token_id": 0}, bytelevel, END),
    "t5": (
        t.T5Config,
        T5 | {"pad_token_id": 1, "decoder_start_token_id": 1},
        sentencepiece,
        {"end": True},
    ),
}
CAUSAL = [kind for kind in FAMILIES if kind.startswith(("llama", "qwen", "gpt"))]


def save(kind: str, folder: Path, classifier: int = 0, **more: object) -> str:
    """Write a model of a family; with a sequence-classification head of so many labels."""
    settings, own, tokenizer, special = FAMILIES[kind]
    made = tokenizer(**special)
    shape = SHAPE if "d_model" not in own else {"initializer_range": 0.5}
    config = settings(**(shape | {"vocab_size": len(made)} | own | more))
    torch.manual_seed(0)
    if classifier:
        config.num_labels = classifier
        model = t.AutoModelForSequenceClassification.from_config(config)
    else:
        model = t.AutoModel.from_config(config)
    model.save_pretrained(folder)
    made.save_pretrained(folder)
    return str(folder)
