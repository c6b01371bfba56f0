"""Students: scores depend on the pair alone, and survive saving."""

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AlbertConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertModel,
    BertTokenizerFast,
    DebertaV2Config,
    DistilBertConfig,
    ElectraConfig,
    ModernBertConfig,
    MPNetConfig,
    RobertaConfig,
    XLMRobertaConfig,
)

from rdx import config
from rdx.config import ConfigError
from rdx.students import HEADS, IMPLEMENTATIONS, Interaction, Linear, LoRA, Mean, Student
from rdx.students.apart import refuse_mixing
from rdx.students.heads import parts_of
from tests.rdx.configured import configured

WORDS = "river engine garden planet violin market stone reed kelp onyx ##s ##ing".split()
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
PAIRS = [
    ("river engine", "garden planet violin river market"),
    ("stone", "stone reed"),
    ("kelps onyx", "engine engine gardening reed kelp onyx river stone planet violin"),
    ("violin unknown", "market"),
]

ON_BERT = tuple(head for head in HEADS if head != "last_token")


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bert")
    (folder / "vocab.txt").write_text("\n".join(SPECIAL + WORDS) + "\n")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(SPECIAL + WORDS),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=512,
        initializer_range=0.5,
    )
    BertModel(config).save_pretrained(folder)
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    return str(folder)


def make(bert, head, seed=0, **settings):
    student = Student(bert, head=head, **settings).create(seed).eval()
    if head == "interaction":  # so that the [CLS] term is part of the test
        torch.nn.init.normal_(student.head.cls.weight, generator=torch.Generator().manual_seed(1))
    return student


@torch.inference_mode()
def score(student, pairs=PAIRS):
    return student(*student.pairs.batch(pairs))


@pytest.mark.parametrize("head", ON_BERT)
def test_scores_do_not_depend_on_padding_or_other_pairs(bert, head):
    student = make(bert, head)
    together = score(student)
    alone = torch.cat([score(student, [pair]) for pair in PAIRS])
    assert together.shape == (4,) and together.dtype == torch.float32
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    torch.testing.assert_close(score(student, PAIRS[::-1]), together.flip(0), atol=1e-5, rtol=0)
    assert together.unique().numel() == 4


@pytest.mark.parametrize("head", ON_BERT)
def test_scores_depend_on_query_and_passage(bert, head):
    student = make(bert, head)
    base = score(student, [("river", "garden stone")])
    for other in [("engine", "garden stone"), ("river", "garden reed"), ("river", "stone garden")]:
        assert (score(student, [other]) - base).abs() > 1e-4


@pytest.mark.parametrize("head", ON_BERT)
def test_saving_and_loading_changes_nothing(bert, head, tmp_path):
    student = make(bert, head, layers=1, query_length=3)
    student.save(tmp_path)
    # the same attention, which by default differs between training and scoring
    how = {"attention_implementation": "eager"}
    loaded = Student(bert, layers=1, head=head, query_length=3, **how).load(tmp_path).eval()
    assert torch.equal(score(loaded), score(student))
    states = student.state_dict(), loaded.state_dict()
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    facts = json.loads((tmp_path / "student.json").read_text())
    own = {"head": head, "attention": "full", "layers": 1, "lengths": [3, 256]}
    assert facts == own | {"padding": "right"}
    assert (tmp_path / "head.safetensors").exists() == (head != "cls")


def test_cls_is_the_plain_sequence_classifier(bert, tmp_path):
    student = make(bert, "cls")
    student.save(tmp_path)
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    inputs = tokenizer([list(pair) for pair in PAIRS], padding=True, return_tensors="pt")
    with torch.inference_mode():
        expected = plain(**inputs).logits
    assert expected.shape == (4, 1)
    torch.testing.assert_close(score(student), expected.squeeze(1), atol=1e-5, rtol=0)


@torch.inference_mode()
def token_vectors(student, pair):
    """Vectors and parts of one pair, unpadded."""
    inputs, parts = student.pairs.batch([pair])
    return student.encoder(**inputs).last_hidden_state[0], parts[0].tolist()


@pytest.mark.parametrize("head", ["linear", "mean"])
def test_a_linear_head_is_a_product_with_the_cls_vector_or_the_mean(bert, head):
    student = make(bert, head)
    linear = student.head.linear
    assert (linear.bias is None) == (head == "linear")
    bias = 0.0 if linear.bias is None else linear.bias.item()
    for pair, found in zip(PAIRS, score(student).tolist(), strict=True):
        vectors = token_vectors(student, pair)[0].tolist()
        rows = vectors[:1] if head == "linear" else vectors
        mean = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
        expected = sum(m * w for m, w in zip(mean, linear.weight[0].tolist(), strict=True))
        assert found == pytest.approx(expected + bias, abs=1e-5)


def cosine(a, b):
    norms = sum(x * x for x in a) ** 0.5 * sum(x * x for x in b) ** 0.5
    return sum(x * y for x, y in zip(a, b, strict=True)) / norms


@pytest.mark.parametrize("trained", [False, True])
def test_interaction_is_scaled_maxsim_plus_a_cls_term(bert, trained):
    student = make(bert, "interaction")
    if not trained:
        torch.nn.init.zeros_(student.head.cls.weight)
    for pair, found in zip(PAIRS, score(student).tolist(), strict=True):
        vectors, parts = token_vectors(student, pair)
        vectors = vectors.tolist()
        queries = [v for v, part in zip(vectors, parts, strict=True) if part == 1]
        passage = [v for v, part in zip(vectors, parts, strict=True) if part == 2]
        best = [max(cosine(q, p) for p in passage) for q in queries]
        weights = student.head.cls.weight[0].tolist()
        cls = sum(v * w for v, w in zip(vectors[0], weights, strict=True))
        assert found == pytest.approx(20 * sum(best) / len(best) + cls, abs=1e-4)
        assert (abs(cls) > 1e-3) == trained


def test_fresh_interaction_has_no_cls_term(bert):
    head = Student(bert, head="interaction").create(0).head
    assert head.scale.item() == 20
    assert not head.cls.weight.any() and not head.cls.bias.any()


def test_heads_ignore_padding_and_special_tokens():
    hidden = torch.randn(1, 6, 4, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[1, 1, 1, 1, 1, 0]])
    parts = torch.tensor([[0, 1, 0, 2, 0, 0]])
    moved = hidden.clone()
    moved[0, 5] = 1e6
    for head in (Linear(4), Mean(4), Interaction(4)):
        assert torch.equal(head(moved, mask, parts), head(hidden, mask, parts))
    moved[0, 2] = 1e6  # a [SEP] matches no query token
    interaction = Interaction(4)
    assert torch.equal(interaction(moved, mask, parts), interaction(hidden, mask, parts))


def test_parts_tell_query_passage_and_special_tokens(bert):
    pairs = make(bert, "cls").pairs
    inputs, parts = pairs.batch([("river engines", "stone"), ("kelp", "reed garden")])
    assert parts.tolist() == [[0, 1, 1, 1, 0, 2, 0], [0, 1, 0, 2, 2, 0, 0]]
    assert inputs["attention_mask"].sum(1).tolist() == [7, 6]
    assert inputs["input_ids"][1, 6] == 0
    assert "parts" not in inputs


@pytest.mark.parametrize("head", ON_BERT)
def test_texts_are_cut_to_their_lengths(bert, head):
    long = [("river engine garden planet", "stone reed kelp onyx market violin")]
    free = score(make(bert, head), long)
    short_query = make(bert, head, query_length=2)
    short_passage = make(bert, head, passage_length=3)
    assert (score(short_query, long) - free).abs() > 1e-4
    assert (score(short_passage, long) - free).abs() > 1e-4
    cut = score(make(bert, head), [("river engine", long[0][1])])
    assert torch.equal(score(short_query, long), cut)
    cut = score(make(bert, head), [(long[0][0], "stone reed kelp")])
    assert torch.equal(score(short_passage, long), cut)
    for student, expected in ((short_query, (1, 0)), (short_passage, (0, 1))):
        tokens = student.pairs.tokens({"q": long[0][0]}, {"d": long[0][1]})
        assert (tokens.queries.truncated.sum(), tokens.passages.truncated.sum()) == expected


def test_lengths_count_tokens_not_words(bert):
    pairs = make(bert, "cls", query_length=3, passage_length=4).pairs
    inputs, parts = pairs.batch([("rivers engines", "reeds kelps stones")])
    assert parts[0].tolist() == [0, 1, 1, 1, 0, 2, 2, 2, 2, 0]
    ids = inputs["input_ids"][0].tolist()
    expected = "[CLS] river ##s engine [SEP] reed ##s kelp ##s [SEP]".split()
    assert pairs.tokenizer.convert_ids_to_tokens(ids) == expected


@pytest.mark.parametrize("head", ON_BERT)
def test_layers_keeps_the_first_ones(bert, head):
    one, two = make(bert, head, layers=1), make(bert, head)
    assert [len(s.encoder.base_model.encoder.layer) for s in (one, two)] == [1, 2]
    first = two.encoder.base_model.encoder.layer[0].state_dict()
    kept = one.encoder.base_model.encoder.layer[0].state_dict()
    assert all(torch.equal(first[name], kept[name]) for name in first)
    assert ((score(one) - score(two)).abs() > 1e-4).all()


@pytest.mark.parametrize("head", ["cls", "mean"])
def test_the_seed_decides_fresh_weights_alone(bert, head):
    before = torch.random.get_rng_state()
    one, same, other = (make(bert, head, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(score(one), score(same))
    assert (score(one) != score(other)).all()
    layers = [s.encoder.base_model.encoder.state_dict() for s in (one, other)]
    assert all(torch.equal(layers[0][name], layers[1][name]) for name in layers[0])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"head": "pool"}, r"student\.head='pool'.*'interaction'"),
        ({"layers": 0}, r"student\.layers=0"),
        ({"query_length": 0}, r"student\.query_length=0"),
        ({"passage_length": -1}, r"student\.passage_length=-1"),
        ({"model": "asset:nothing"}, r"asset:nothing.*all-MiniLM-L6-v2"),
        ({"attention": "local"}, r"student\.attention='local'.*'sparse'"),
        ({"attention_implementation": "fast"}, r"student\.attention_implementation='fast'.*'sdpa'"),
        (
            {"attention": "sparse", "attention_implementation": "flash_attention_2"},
            r"student\.attention_implementation='flash_attention_2'.*\['eager', 'sdpa'\]",
        ),
    ],
)
def test_bad_values_name_their_key(values, message):
    with pytest.raises(ValueError, match=message):
        configured("student", Student, **({"model": "somewhere"} | values))


def test_dropout_replaces_the_models_own(bert):
    def training_scores(dropout):
        student = Student(bert, head="cls", dropout=dropout).create(0).train()
        torch.manual_seed(3)
        return score(student)

    evaluated = score(Student(bert, head="cls").create(0).eval())
    torch.testing.assert_close(training_scores(0.0), evaluated)
    as_it_comes = training_scores(None)
    assert not torch.allclose(as_it_comes, evaluated)
    torch.testing.assert_close(training_scores(0.1), as_it_comes)  # BERT's own value
    assert not torch.allclose(training_scores(0.6), as_it_comes)


@pytest.mark.parametrize("dropout", [-0.1, 1.0])
def test_dropout_must_be_a_probability(bert, dropout):
    with pytest.raises(ValueError, match="student.dropout"):
        configured("student", Student, bert, dropout=dropout)


@torch.inference_mode()
def hidden(student, query, passage):
    """Token vectors of one pair, and its parts."""
    seen = {}
    hook = student.encoder.register_forward_hook(
        lambda module, inputs, output: seen.update(out=output.last_hidden_state[0])
    )
    inputs, parts = student.pairs.batch([(query, passage)])
    student(inputs, parts)
    hook.remove()
    return seen["out"], parts[0]


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_sparse_attention_keeps_the_texts_apart_and_cls_sees_both(bert, attention):
    student = make(bert, "interaction", attention="sparse")
    student.encoder.set_attn_implementation(attention)
    base, parts = hidden(student, "river engine", "garden stone kelp")
    query, passage = parts == 1, parts == 2
    other, _ = hidden(student, "river engine", "violin stone kelp")
    torch.testing.assert_close(other[query], base[query])
    assert not torch.allclose(other[0], base[0])
    # another query, and a longer one: the passage's positions count from the passage
    for text in ("river stone", "river engine violin market"):
        other, others = hidden(student, text, "garden stone kelp")
        torch.testing.assert_close(other[others == 2], base[passage], atol=1e-5, rtol=1e-5)
        assert not torch.allclose(other[0], base[0])
    # with full attention both depend on the other text
    full = make(bert, "interaction")
    one, _ = hidden(full, "river engine", "garden stone kelp")
    two, _ = hidden(full, "river engine", "violin stone kelp")
    assert not torch.allclose(one[query], two[query])


# What is not as in the tiny BERT. In RoBERTa's positions, 0 and 1 are those of padding.
DISTIL = {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32}
MODERN = {"cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3}
KINDS = {
    "bert": (BertConfig, {}),
    "electra": (ElectraConfig, {"embedding_size": 8}),
    "albert": (AlbertConfig, {"embedding_size": 8}),
    "roberta": (RobertaConfig, {"pad_token_id": 1}),
    "xlm-roberta": (XLMRobertaConfig, {"pad_token_id": 1}),
    "mpnet": (MPNetConfig, {"pad_token_id": 1}),
    "distilbert": (DistilBertConfig, DISTIL),
    "modernbert": (ModernBertConfig, MODERN | {"local_attention": 26}),
    "deberta-v2": (DebertaV2Config, {"relative_attention": True, "pos_att_type": "p2c|c2p"}),
    "deberta-v2, absolute": (DebertaV2Config, {"relative_attention": False}),
}
MIXING = [kind for kind in KINDS if kind.startswith("deberta")]


def encoder_of(kind, bert, folder):
    """Folder of a tiny random encoder with the tokeniser of `bert`."""
    settings, more = KINDS[kind]
    shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    shape |= {"intermediate_size": 32, "max_position_embeddings": 512, "initializer_range": 0.5}
    shape |= {"vocab_size": len(SPECIAL + WORDS), "pad_token_id": 0}
    torch.manual_seed(0)
    AutoModel.from_config(settings(**(shape | more))).save_pretrained(folder)
    made = BertTokenizerFast(f"{bert}/vocab.txt")
    if more.get("pad_token_id"):
        made.pad_token, made.unk_token = "[UNK]", "[PAD]"  # ids 1 and 0
    made.save_pretrained(folder)
    return str(folder)


@torch.inference_mode()
def vectors_alone(student, text):
    """What the encoder gives a text at its own positions, without [CLS] or another text."""
    inputs = student.pairs.tokenizer(text, return_tensors="pt")
    inputs["attention_mask"][:, 0] = 0
    return student.encoder(**inputs).last_hidden_state[0, 1:-1]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in MIXING])
def test_sparse_attention_gives_each_text_the_vectors_it_has_alone(kind, bert, tmp_path):
    folder = encoder_of(kind, bert, tmp_path)
    settings = {"query_length": 8, "passage_length": 12, "attention": "sparse"}
    student = make(folder, "interaction", **settings)
    query, passage = "river engine kelps", "garden stone kelp onyx market reed"
    found, parts = hidden(student, query, passage)
    for part, text in ((1, query), (2, passage)):
        alone = vectors_alone(student, text)
        torch.testing.assert_close(found[parts == part], alone, atol=1e-4, rtol=1e-4)
    # so that the query's do not change with the passage, and [CLS] still reads both
    other, others = hidden(student, query, "violin stone")
    torch.testing.assert_close(other[others == 1], found[parts == 1], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(other[0], found[0], atol=1e-2)
    # nor with padding
    inputs, both = student.pairs.batch([(query, passage), ("reed", WORDS[0])])
    with torch.inference_mode():
        together = student(inputs, both)
    torch.testing.assert_close(together[:1], score(student, [(query, passage)]))


@pytest.mark.parametrize("head", ["cls", "interaction"])
@pytest.mark.parametrize("kind", MIXING)
def test_encoders_that_cannot_keep_texts_apart_are_refused(kind, head, bert, tmp_path):
    folder = encoder_of(kind, bert, tmp_path)
    with pytest.raises(ValueError, match=r"student\.attention='sparse'.*'deberta-v2'.*=full"):
        Student(folder, head=head, attention="sparse").create(0)
    assert score(make(folder, head)).unique().numel() == len(PAIRS)  # full attention works


def test_windows_that_the_mask_would_replace_are_found_out(bert, tmp_path):
    folder = encoder_of("modernbert", bert, tmp_path)  # a token sees 13 to each side
    Student(folder, head="mean", attention="sparse", query_length=8, passage_length=13).create(0)
    with pytest.raises(ValueError, match=r"'modernbert'.*a passage of 20 tokens"):
        Student(folder, head="mean", attention="sparse", passage_length=20, query_length=8).create(
            0
        )


def test_an_encoder_that_ignores_the_mask_is_refused(bert):
    encoder = BertModel.from_pretrained(bert).eval()
    refuse_mixing(encoder, 8, 12)
    forward = encoder.forward
    changes = {
        "mask": lambda mask, positions: (None, positions),
        "positions": lambda mask, positions: (mask, None),
    }
    for change in changes.values():

        def deaf(input_ids, attention_mask, position_ids=None, change=change):
            if attention_mask.dim() == 4:
                attention_mask, position_ids = change(attention_mask, position_ids)
            return forward(input_ids, attention_mask=attention_mask, position_ids=position_ids)

        encoder.forward = deaf
        with pytest.raises(ValueError, match=r"a (query of 8|passage of 12) tokens"):
            refuse_mixing(encoder, 8, 12)


@pytest.mark.parametrize("attention", ["full", "sparse"])
def test_attention_implementations_agree(bert, attention):
    student = make(bert, "interaction", attention=attention)
    scores = {}
    for implementation in ("eager", "sdpa"):
        student.encoder.set_attn_implementation(implementation)
        scores[implementation] = score(student)
    torch.testing.assert_close(scores["eager"], scores["sdpa"], atol=1e-5, rtol=1e-5)


SPELT = [("river [SEP] engine", "[CLS] garden [SEP] [PAD] planet"), ("[SEP]", "[MASK] stone")]


def test_special_tokens_that_a_text_spells_out_are_text(bert):
    pairs = make(bert, "cls", passage_length=4).pairs
    inputs, parts = pairs.batch(SPELT)
    special = pairs.tokenizer.convert_tokens_to_ids(["[PAD]", "[CLS]", "[SEP]", "[MASK]"])
    assert torch.equal(torch.isin(inputs["input_ids"], torch.tensor(special)), parts == 0)
    # "[", "SEP" and "]" are a token each; "[", "CLS", "]" and "garden" are all of the passage
    assert parts[0].tolist() == [0, *[1] * 5, 0, *[2] * 4, 0]
    assert parts[1].tolist() == [0, *[1] * 3, 0, *[2] * 4, 0, 0, 0]
    assert pairs.tokens({}, dict(SPELT)).passages.truncated.tolist() == [True, False]


def test_parts_are_found_again_in_the_token_ids(bert):
    pairs = make(bert, "cls").pairs
    inputs, parts = pairs.batch(PAIRS + SPELT)
    ids = pairs.tokenizer.cls_token_id, pairs.tokenizer.sep_token_id
    found = parts_of(inputs["input_ids"], inputs["attention_mask"], *ids)
    assert torch.equal(found, parts)


@pytest.mark.parametrize("implementation", [None, "eager", "sdpa"])
def test_attention_implementation_is_what_was_asked_for(bert, implementation, tmp_path):
    student = Student(bert, attention_implementation=implementation)
    default = "sdpa" if torch.cuda.is_available() else "eager"
    created = student.create(0).eval()
    assert created.encoder.config._attn_implementation == (implementation or default)
    created.save(tmp_path)
    scoring, training = student.load(tmp_path), student.load(tmp_path, seed=0)
    assert scoring.encoder.config._attn_implementation == (implementation or "sdpa")
    assert training.encoder.config._attn_implementation == (implementation or default)
    torch.testing.assert_close(score(created), score(make(bert, "cls")), atol=1e-5, rtol=1e-5)
    assert implementation in (None, *IMPLEMENTATIONS)


def composed(preset, *overrides):
    """The student of a preset, built from conf/."""
    [cell] = config.cells([f"student={preset}", *overrides])
    return config.build(cell.cfg["student"], "student")


@pytest.mark.parametrize("size", ["base", "large"])
def test_monoelectra_presets_are_the_papers(size):
    student = composed(f"monoelectra_{size}")
    assert student == Student(
        f"google/electra-{size}-discriminator", head="linear", query_length=32, passage_length=256
    )


def test_the_set_encoder_is_that_of_its_paper():
    """`pre-finetune.yaml` and `finetune.yaml` of webis-de/set-encoder."""
    assert composed("set_encoder") == Student(
        "google/electra-base-discriminator",
        head="linear",
        query_length=32,
        passage_length=256,
        between="int_token",
        filled_to=100,
    )


def test_the_papers_optimiser():
    [cell] = config.cells(["trainer=paper"])
    paper = {
        "learning_rate": 1e-5,
        "batch": 32,
        "warmup": 0.0,
        "schedule": "constant",
        "weight_decay": 0.01,
        "clip": 0.0,
        "precision": "bf16",
    }
    assert {key: cell.cfg["trainer"][key] for key in paper} == paper


def test_an_electra_encoder_is_a_student(bert, tmp_path):
    folder = encoder_of("electra", bert, tmp_path)
    for head, name in (("linear", "ElectraModel"), ("cls", "ElectraForSequenceClassification")):
        overrides = (f"student.model={folder}", f"student.head={head}")
        student = composed("monoelectra_base", *overrides).create(0).eval()
        assert type(student.encoder).__name__ == name
        assert score(student).unique().numel() == len(PAIRS)


def pytest_peft():
    return pytest.importorskip("peft")


def trained(student, steps=3):
    """Train to prefer the first pair, for the sake of other weights."""
    parameters = [p for p in student.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=0.01)
    inputs, parts = student.pairs.batch(PAIRS)
    for _ in range(steps):
        loss = -student(inputs, parts).log_softmax(0)[0]
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    return student


def base_weights(student):
    """Weights of the encoder below the head, by the name they have without adapters."""
    state = student.encoder.base_model.state_dict()
    return {k.replace(".base_layer", ""): v for k, v in state.items() if "lora_" not in k}


@pytest.mark.parametrize("head", ON_BERT)
def test_lora_trains_adapters_and_head_and_saves_plain_weights(bert, head, tmp_path):
    pytest_peft()
    settings = Student(bert, head=head, lora=LoRA(rank=2, alpha=8.0), dropout=0.0)
    student = settings.create(0)
    plain = Student(bert, head=head, dropout=0.0).create(0)
    torch.testing.assert_close(score(student), score(plain))  # B is zero at the start
    before = {name: value.clone() for name, value in base_weights(student).items()}
    fresh = {n: p.detach().clone() for n, p in student.named_parameters() if p.requires_grad}
    assert {n for n in fresh if "encoder.base_model" not in n and "lora_" not in n} == {
        n for n in fresh if n.startswith(("head.", "encoder.classifier", "encoder.bert.pooler"))
    }
    trained(student)
    frozen = base_weights(student)
    assert all(
        torch.equal(value, before[name]) for name, value in frozen.items() if "pooler" not in name
    )
    moved = [
        n for n, p in student.named_parameters() if n in fresh and not torch.equal(p, fresh[n])
    ]
    assert [n for n in moved if "lora_B" in n]
    assert [n for n in moved if n.startswith("encoder.classifier" if head == "cls" else "head.")]
    student.eval()
    found = score(student)
    student.save(tmp_path)
    assert torch.equal(score(student), found)  # saving leaves what is being trained as it is
    loaded = Student(bert, head=head, dropout=0.0).load(tmp_path).eval()  # knows nothing of LoRA
    torch.testing.assert_close(score(loaded), found, atol=1e-5, rtol=1e-5)
    assert not [name for name in loaded.state_dict() if "lora_" in name]


def test_lora_goes_on_from_merged_weights_with_fresh_adapters(bert, tmp_path):
    pytest_peft()
    settings = Student(bert, lora=LoRA(rank=2), dropout=0.0)
    trained(settings.create(0)).save(tmp_path)
    one, same, other = (settings.load(tmp_path, seed).eval() for seed in (1, 1, 2))
    torch.testing.assert_close(score(one), score(settings.load(tmp_path).eval()))
    adapters = [
        torch.cat([p.flatten() for n, p in s.named_parameters() if "lora_A" in n])
        for s in (one, same, other)
    ]
    assert torch.equal(adapters[0], adapters[1]) and not torch.equal(adapters[0], adapters[2])
    assert not [n for n, _ in settings.load(tmp_path).named_parameters() if "lora_" in n]
    before = score(one)
    assert ((score(trained(one)) - before).abs() > 1e-4).any()


def test_every_argument_of_lora_counts(bert):
    pytest_peft()

    def scores(**settings):
        student = Student(bert, lora=LoRA(**({"rank": 2} | settings)), dropout=0.0).create(0)
        adapters = sum("lora_A" in name for name, _ in student.named_parameters())
        sizes = [p.shape[0] for n, p in student.named_parameters() if "lora_A" in n]
        torch.manual_seed(5)
        return adapters, sizes, score(trained(student))

    base = scores()
    assert base[0] == 2 * 6 and set(base[1]) == {2}
    assert set(scores(rank=3)[1]) == {3}
    assert scores(targets=("query", "value"))[0] == 2 * 2
    assert scores(targets=("intermediate.dense",))[0] == 2
    assert not torch.allclose(scores(alpha=1.0)[2], base[2])
    assert not torch.allclose(scores(dropout=0.5)[2], base[2])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rank": 0}, r"student\.lora\.rank=0"),
        ({"alpha": 0.0}, r"student\.lora\.alpha=0"),
        ({"dropout": 1.0}, r"student\.lora\.dropout=1"),
        ({"targets": []}, r"student\.lora\.targets=\[\]"),
    ],
)
def test_bad_values_of_lora_name_their_key(values, message):
    with pytest.raises(ValueError, match=message):
        configured("student.lora", LoRA, **values)


def test_lora_without_peft_says_what_to_install(monkeypatch):
    from importlib import util

    monkeypatch.setattr(util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"student\.lora: .*'\.\[lora\]'"):
        configured("student.lora", LoRA)


def test_lora_of_layers_that_are_not_there(bert):
    pytest_peft()
    with pytest.raises(ValueError, match=r"targets=\['q_proj'\].*'dense', 'key', 'query', 'value'"):
        Student(bert, lora=LoRA(targets=("q_proj",))).create(0)


def test_lora_from_the_command_line(bert):
    pytest_peft()
    student = composed(
        "hf", f"student.model={bert}", "student/lora=adapters", "student.lora.rank=4"
    )
    assert student.lora == LoRA(rank=4)
    assert composed("hf", f"student.model={bert}").lora is None


@pytest.mark.slow
@pytest.mark.parametrize("head", ["cls", "interaction"])
def test_compiling_changes_no_score_gradient_or_dropout(bert, head, tmp_path):
    def gradients(compile):
        student = Student(bert, head=head, dropout=0.3, compile=compile).create(0).train()
        torch.manual_seed(7)
        inputs, parts = student.pairs.batch(PAIRS)
        scores = student(inputs, parts)
        scores.log_softmax(0)[0].backward()
        named = {n: p.grad for n, p in student.named_parameters() if p.grad is not None}
        return student, scores.detach(), named

    compiled, found, gradient = gradients(True)
    _, expected, plain = gradients(False)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert gradient.keys() == plain.keys()
    for name, value in plain.items():
        torch.testing.assert_close(gradient[name], value, atol=1e-4, rtol=1e-3)
    compiled.eval()
    longer = [(query, f"{passage} reed reed") for query, passage in PAIRS[:3]]
    together = score(compiled, longer)
    compiled.save(tmp_path)
    loaded = Student(bert, head=head, dropout=0.3).load(tmp_path).eval()
    torch.testing.assert_close(score(loaded, longer), together, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("head", ON_BERT)
def test_every_weight_that_is_trained_has_a_gradient(bert, head):
    student = Student(bert, head=head).create(0)
    inputs, parts = student.pairs.batch(PAIRS)
    student(inputs, parts).log_softmax(0)[0].backward()
    for name, parameter in student.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
        assert parameter.requires_grad or "pooler" in name


@pytest.mark.slow
def test_a_distillation_with_lora_changes_the_encoder_by_a_low_rank(world, rdx, tmp_path):
    pytest_peft()
    lora = ["student/lora=adapters", "student.lora.rank=2", "prefinetune=none"]
    done = rdx(world.overrides(tmp_path / "store", *lora), tmp_path)
    assert done.returncode == 0, done.stderr
    states = []
    for stage in ("prefinetune", "distill"):
        [folder] = [p for p in (tmp_path / "store" / stage).iterdir() if p.is_dir()]
        states.append(load_file(folder / "model.safetensors"))
    before, after = states
    ranks = {
        name: int(torch.linalg.matrix_rank(after[name] - before[name], rtol=1e-4))
        for name in before
        if before[name].dim() == 2
    }
    assert max(ranks.values()) == 2
    assert all(torch.equal(before[name], after[name]) for name in before if "Norm" in name)
