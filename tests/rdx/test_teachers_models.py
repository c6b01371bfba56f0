"""A GGUF file of an asset is converted once, and what is loaded is the same."""

import hashlib
import itertools

import gguf
import numpy as np
import pytest
import torch

from rdx import assets
from rdx.gguf import load_lm
from rdx.teachers import models

LETTERS = [chr(i) for i in range(ord("a"), ord("z") + 1)]
Q8 = gguf.GGMLQuantizationType.Q8_0


def write_gguf(path):
    """A random Llama of one layer, quantised, with a byte-pair tokeniser."""
    vocabulary = ["<unk>", "<s>", "</s>", *LETTERS, "Ġ", "Ċ", *(f"Ġ{letter}" for letter in LETTERS)]
    file = gguf.GGUFWriter(path, "llama")
    for add, value in (
        (file.add_context_length, 128),
        (file.add_embedding_length, 32),
        (file.add_block_count, 1),
        (file.add_feed_forward_length, 64),
        (file.add_head_count, 4),
        (file.add_head_count_kv, 2),
        (file.add_layer_norm_rms_eps, 1e-5),
        (file.add_rope_freq_base, 10000.0),
        (file.add_vocab_size, len(vocabulary)),
        (file.add_tokenizer_model, "gpt2"),
        (file.add_token_list, vocabulary),
        (file.add_token_types, [3] * 3 + [1] * (len(vocabulary) - 3)),
        (file.add_token_merges, [f"Ġ {letter}" for letter in LETTERS]),
        (file.add_bos_token_id, 1),
        (file.add_eos_token_id, 2),
        (file.add_unk_token_id, 0),
        (file.add_pad_token_id, 2),
    ):
        add(value)
    generator = np.random.default_rng(0)
    matrices = {"attn_q": 32, "attn_k": 16, "attn_v": 16, "attn_output": 32}
    shapes = {f"blk.0.{name}.weight": (rows, 32) for name, rows in matrices.items()}
    shapes |= {f"blk.0.{name}.weight": (64, 32) for name in ("ffn_gate", "ffn_up")}
    shapes |= {"blk.0.ffn_down.weight": (32, 64), "token_embd.weight": (len(vocabulary), 32)}
    for name, shape in shapes.items():
        values = generator.normal(0, 0.1, shape).astype(np.float32)
        file.add_tensor(name, gguf.quants.quantize(values, Q8), raw_dtype=Q8)
    for name in ("output_norm.weight", "blk.0.attn_norm.weight", "blk.0.ffn_norm.weight"):
        file.add_tensor(name, generator.normal(1, 0.1, 32).astype(np.float32))
    file.write_header_to_file()
    file.write_kv_data_to_file()
    file.write_tensors_to_file()
    file.close()


@pytest.fixture
def asset(tmp_path, monkeypatch):
    """The folder of an asset that has been fetched."""
    folder = tmp_path / "cache" / "tiny"
    folder.mkdir(parents=True)
    write_gguf(folder / "tiny.gguf")
    digest = hashlib.sha256((folder / "tiny.gguf").read_bytes()).hexdigest()
    monkeypatch.setenv("RDX_CACHE", str(tmp_path / "cache"))
    known = {"tiny": assets.Asset("tiny==1", "tiny/", "tiny.gguf", digest)}
    monkeypatch.setattr(assets, "ASSETS", known)
    return folder


def assert_same(loaded, expected):
    (tokenizer, model), (other_tokenizer, other_model) = loaded, expected
    weights, expected = model.state_dict(), other_model.state_dict()
    assert weights.keys() == expected.keys()
    for name, weight in weights.items():
        assert weight.dtype == expected[name].dtype and torch.equal(weight, expected[name])
    for text in ("a river", " two\nlines", "</s>"):
        assert tokenizer(text)["input_ids"] == other_tokenizer(text)["input_ids"]


def test_a_gguf_file_is_converted_once(asset, monkeypatch):
    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        loaded = models.load_causal("asset:tiny", precision, "cpu")
        assert_same(loaded, load_lm(str(asset), dtype))
    (converted,) = asset.glob("safetensors-*")
    assert {path.name for path in asset.iterdir()} == {"tiny.gguf", converted.name}
    before = (converted / "model.safetensors").stat()
    models.load_causal("asset:tiny", "fp32", "cpu")
    assert (converted / "model.safetensors").stat().st_ino == before.st_ino
    # another version of what reads GGUF files makes its own
    monkeypatch.setattr("importlib.metadata.version", lambda name: "99")
    models.load_causal("asset:tiny", "fp32", "cpu")
    assert len(list(asset.glob("safetensors-*"))) == 2


def test_a_damaged_or_unfinished_conversion_is_made_again(asset):
    models.load_causal("asset:tiny", "fp32", "cpu")
    (converted,) = asset.glob("safetensors-*")
    for name, change in itertools.product(
        ("model.safetensors", "tokenizer.json", assets.SEAL), ("cut", "removed")
    ):
        path = converted / name
        path.write_bytes(path.read_bytes()[:-9]) if change == "cut" else path.unlink()
        assert not assets.sealed(converted)
        loaded = models.load_causal("asset:tiny", "fp32", "cpu")
        assert_same(loaded, load_lm(str(asset), torch.float32))
        assert assets.sealed(converted)
