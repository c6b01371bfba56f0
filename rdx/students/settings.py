"""Settings of a student; `rdx.students.making` makes and loads one."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

from annotated_types import MinLen

from rdx import late
from rdx.assets import Model, check_model
from rdx.declared import (
    SCHEDULES,
    Above0,
    BelowOne,
    Positive,
    Texts,
    one_of,
    settings,
)
from rdx.students.folders import check_folder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from rdx.students import making
    from rdx.students.encoder import CrossEncoder
else:
    making = late.module("rdx.students.making")

CLASSIFIERS = ("cls", "last_token")  # heads that are the model's own
HEADS = (*CLASSIFIERS, "linear", "mean", "interaction")  # the others: `rdx.students.heads.OWN`
POOLING = ("cls", "mean")
QUERY, PASSAGE = "{query}", "{passage}"  # where a template has the texts
ATTENTION = ("full", "sparse")
BETWEEN = ("none", "int_token")
# As Transformers names them. The flash ones need packages (and GPUs) of their own, and take no mask
# that keeps two texts apart.
MASKED = ("eager", "sdpa")
VARLEN = "varlen"  # of `rdx.students.packing`
IMPLEMENTATIONS = (*MASKED, "flash_attention_2", "flash_attention_3", VARLEN)


@settings(frozen=True)
class LoRA:
    """Train low-rank updates of the encoder's matrices instead of the matrices (Hu et al. 2022).

    The head, and the pooler under the model's own head, are trained whole. A saved student is
    merged: plain weights that know nothing of adapters. Each stage trains adapters of its own.
    Needs the extra `lora` (peft).

    Parameters
    ----------
    rank
        r of the update ``alpha / r * B A``.
    alpha
        Scale of the update.
    dropout
        Dropout probability of what goes into A.
    targets
        Names of linear layers, or ends of names, e.g. [query, value]; None = all of the encoder.
    """

    rank: Positive = 16
    alpha: Above0 = 32.0
    dropout: BelowOne = 0.0
    targets: Annotated[Texts, MinLen(1)] | None = None

    requires: ClassVar[str] = "peft"


@settings(frozen=True)
class Student:
    """A cross-encoder: a Hugging Face encoder over query and passage together, and a head.

    Parameters
    ----------
    model
        "asset:NAME", a folder, or a Hub id.
    layers
        Keep the first n layers; None = all.
    head
        "cls": the model's own sequence-classification head, which plain Transformers loads; of a
        trained one with two labels, the logit of the second minus that of the first.
        "last_token": the same head of a model that reads from left to right (a decoder), which
        scores by the last token's vector; refused where the model reads its score elsewhere.
        "linear": a linear layer without bias on the [CLS] vector (the paper's ELECTRA; Lightning
        IR's default). "mean": a linear layer on the mean of all token vectors. "interaction":
        ``a * MaxSim(query, passage) + w . h_[CLS]`` on the jointly encoded token vectors, a and w
        learned, w = 0 at the start (after CEDR, MacAvaney et al. 2019); where the encoder is an
        embedding model, it starts as a usable ranker.
    query_length, passage_length
        Tokens kept of each, special tokens not counted.
    pooling
        What the model's own head reads, of models that leave the choice (ModernBERT): "cls", the
        first vector, or "mean", that of all; None = as the model's configuration has it.
    template
        What stands around the texts, as "Query: {query} Passage: {passage} Relevant:", in place of
        the tokeniser's own special tokens; its special tokens are written out, ``[CLS]``, ``</s>``.
        Each piece and each text is tokenised by itself. None = as the tokeniser makes pairs. It is
        saved with the tokeniser.
    attention
        "full": every token sees every token (the paper). "sparse": [CLS] sees everything, a query
        token the query only, a passage token the passage only, and positions restart at the passage
        (an extreme of the sparse cross-encoders of Schlatt et al., ECIR 2024): an embedding model
        keeps the token vectors that it was trained for, and only [CLS] reads both texts. Encoders
        that cannot do that (DeBERTa) are refused.
    between
        Attention between the passages of a list. "none": a passage is scored alone. "int_token":
        every passage has a token [INT], which the other passages of its list attend to (the
        Set-Encoder of Schlatt et al., ECIR 2025; docs/models.md): a score is one
        of a passage in its list, in any order, and lists are scored whole. BERT-like encoders.
    filled_to
        In training, lists of fewer passages are filled up to so many by drawn [INT] vectors; None =
        not. For `between`.
    dropout
        Every dropout probability of the encoder; None = as the model's configuration has them.
    frozen_positions
        Leave the learned embeddings of positions as they come (Pezzuti et al. 2025); models without
        them are refused.
    lora
        Train low-rank updates only; None = all weights.
    compile
        Compile the encoder with torch.compile (a C++ compiler or Triton is needed). The first
        steps take minutes; dropout draws the same numbers. Not part of the identity.
    attention_implementation
        How attention is computed, in the words of Transformers; or "varlen": layers see no padding
        (BERT-like encoders and ModernBERT; docs/models.md). None = "eager" for training where there
        is no GPU, else the model's default. Not part of the identity.
    revision
        Of a Hub id: a branch, a tag or a commit; None = "main".
    """

    model: Model
    layers: Positive | None = None
    head: Annotated[str, one_of(*HEADS)] = "cls"
    query_length: Positive = 32
    passage_length: Positive = 256
    pooling: Annotated[str, one_of(*POOLING)] | None = None
    template: str | None = None
    attention: Annotated[str, one_of(*ATTENTION)] = "full"
    between: Annotated[str, one_of(*BETWEEN)] = "none"
    filled_to: Positive | None = None
    dropout: BelowOne | None = None
    frozen_positions: bool = False
    lora: LoRA | None = None
    compile: Annotated[bool, SCHEDULES] = False
    attention_implementation: Annotated[str, one_of(*IMPLEMENTATIONS), SCHEDULES] | None = None
    revision: str | None = None

    # What of a student decides how texts are tokenised.
    tokenised_by: ClassVar = ("model", "revision", "query_length", "passage_length")
    # What decides how it is trained alone: weights that were trained with others fit.
    trained_by: ClassVar = ("dropout", "filled_to", "frozen_positions", "lora")

    def __post_init__(self) -> None:
        """Check values together."""
        if self.attention == "sparse" and self.attention_implementation not in (None, *MASKED):
            raise ValueError(
                f"attention_implementation={self.attention_implementation!r}: takes no "
                f"mask as attention='sparse' needs it; must be one of {list(MASKED)}, or null"
            )
        if self.pooling is not None and self.head != "cls":
            raise ValueError(f"pooling={self.pooling!r}: of head='cls' alone; give null")
        if self.template is not None:
            self._check_template(self.template)
        if self.compile and self.attention_implementation == VARLEN:
            raise ValueError("compile=true: not with attention_implementation='varlen'")
        if self.scores_lists:
            self._check_lists()
        elif self.filled_to is not None:
            raise ValueError(
                f"filled_to={self.filled_to}: there is nothing to fill up with between='none'; "
                "give filled_to=null, or between=int_token"
            )

    def _check_lists(self) -> None:
        name = f"between={self.between!r}"
        if self.attention == "sparse":
            raise ValueError(f"{name}: not with attention='sparse'; give attention=full")
        if self.attention_implementation not in (None, *MASKED):
            raise ValueError(
                f"{name}: not with attention_implementation={self.attention_implementation!r}, "
                f"which takes no mask; must be one of {list(MASKED)}, or null"
            )
        if self.compile:
            raise ValueError(f"{name}: not with compile=true; give compile=false")

    @property
    def scores_lists(self) -> bool:
        """Whether the score of a passage depends on the other passages of its list."""
        return self.between != "none"

    def _check_template(self, template: str) -> None:
        before, query, rest = template.partition(QUERY)
        if not query or PASSAGE in before or rest.count(PASSAGE) != 1 or QUERY in rest:
            raise ValueError(
                f"template={template!r}: must have {QUERY} once and, after it, {PASSAGE} once"
            )
        if self.attention == "sparse" or self.head == "interaction":
            raise ValueError(
                f"template={template!r}: not with attention='sparse' or head='interaction', which "
                "tell the texts apart by the tokeniser's own special tokens"
            )

    def check(self) -> None:
        """Check the files of a model that is a place on this machine; reads no weights.

        Raises
        ------
        FileNotFoundError, ValueError
            Naming the key, if it is none, or its weights are not whole.
        """
        check_model(self.model, self.revision)
        folder = Path(self.model)
        if folder.exists() or self.model.startswith(("/", "./", "../", "~")):
            check_folder(folder, f"model={self.model}", self.head, self.between)

    def verify(self) -> None:
        """Load the student and try it on a few pairs, once in a process: before others are paid.

        Raises
        ------
        ModelError, FileNotFoundError, AssetError, HubError
            As `create`.
        """
        _verify(self)

    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The model's tokenizer alone.

        Raises
        ------
        ModelError, FileNotFoundError, AssetError, HubError
            As `create`.
        """
        return making.tokenizer(self)

    def create(self, seed: int) -> CrossEncoder:
        """The student as it comes, to be trained; `seed` decides freshly drawn weights.

        Raises
        ------
        ModelError, FileNotFoundError
            If the weights are not all the model's, or the student cannot score its pairs
            (`rdx.students.probe`); the message begins with the key.
        AssetError, HubError
            If the model cannot be had.
        """
        return making.create(self, seed)

    def load(self, folder: Path, seed: int | None = None) -> CrossEncoder:
        """A student that `CrossEncoder.save` wrote.

        With `lora`, one that is to be trained needs a seed, which decides the fresh adapters;
        without a seed there are none, which is as it should be for scoring.
        """
        return making.load(self, folder, seed)


@lru_cache(maxsize=64)
def _verify(student: Student) -> None:
    student.create(0)
