"""Late interaction: every token of a text is a vector."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import pandas as pd

from rdx import rankings
from rdx.assets import PREFIX, Model, check_model, model_path
from rdx.bars import bar
from rdx.declared import (
    PRECISION,
    SCHEDULES,
    Device,
    Group,
    Positive,
    one_of,
    settings,
)
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
        "asset:NAME" is an asset of `rdx.assets`.
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
        Of the encoder: "fp32", "bf16" (autocast), or "auto", which becomes one of them
        (`rdx.precision.chosen`).
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

    def index_of(self, corpus: Any) -> Any:
        """What decides the index: the passages and how they are encoded; or that of `over`."""
        if self.over is not None:
            return self.over.index_of(corpus)
        found = {"corpus": corpus, "index": self.index, **self._encoding()}
        return {key: value for key, value in found.items() if key != "query_length"}

    def prepare(self, collection: Any, folder: Path) -> None:
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
                np.save(name, np.array([len(one) for one in vectors], dtype=np.int32))
        if self.index == "plaid":
            plaid.build(folder, [one for block in _stored(folder) for one in _cut(*block)], device)
            for path in folder.glob("tokens.*.npy"):
                path.unlink()

    def covered(self, queries: Iterable[str], folder: Path | None = None) -> list[str]:
        """Those of the queries that candidates can be drawn for: all, or those of `over`."""
        if self.over is not None:
            found: list[str] = self.over.covered(queries, folder)
            return found
        return list(queries)

    def candidates(self, collection: Any, k: int, folder: Path | None = None) -> pd.DataFrame:
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
            return self._again(self.over, collection, k, folder)
        from rdx.samplers import maxsim

        with prepared(self, collection, folder) as place:
            ids = Ids(place)
            queries = self._queries(list(collection.queries.values()))
            if self.index == "plaid":
                found = plaid.search(place, queries, min(k, len(ids)), self._device())
            else:
                import torch

                shown = bar(_stored(place), desc="MaxSim", unit="block", leave=False)
                passages = ((torch.from_numpy(v), sizes) for v, sizes in shown)
                places = torch.from_numpy(np.array(ids.places)).to(self._device())
                found = maxsim.search(queries, passages, places, k, self._device())
            positions = [one.numpy() for one, _ in found]
            return table(collection.queries, ids, positions, [one.numpy() for _, one in found])

    def fingerprint(self) -> dict[str, Any]:
        """What it is, versions and parameters, for table footers."""
        engine = "MaxSim" if self.index == "exact" else "PLAID"
        what = "ColBERT" if self.kind == "colbert" else "token vectors of an encoder, no ColBERT"
        found = {"engine": f"{engine}, {what}", **self._encoding()}
        if self.over is not None:
            found |= {"over": self.over.fingerprint(), "top": self.top}
        return found

    def _again(self, over: Sampler, collection: Any, k: int, folder: Path | None) -> pd.DataFrame:
        """Rank the best passages of `over` again, every passage encoded once and then forgotten."""
        import torch

        from rdx.samplers import maxsim

        first = over.candidates(collection, self.top, folder)
        asked, query_ids = pd.factorize(first.query_id)
        named, doc_ids = pd.factorize(first.doc_id)
        model, device = self._model(), self._device()
        queries = self._queries([collection.queries[query_id] for query_id in query_ids], model)
        scores = np.full(len(first), -np.inf, dtype=np.float32)
        rows = np.lexsort((asked, named // BLOCK))  # block by block, and there query by query
        starts = np.flatnonzero(np.diff(named[rows] // BLOCK, prepend=-1))
        shown = bar(np.split(rows, starts[1:]), desc="encoding passages", unit="block", leave=False)
        for part in shown if len(rows) else ():
            start = named[part[0]] // BLOCK * BLOCK
            texts = [collection.passages[doc_id] for doc_id in doc_ids[start : start + BLOCK]]
            vectors = [torch.from_numpy(v) for v in self._encode(model, texts, "document")]
            for mine in np.split(part, np.flatnonzero(np.diff(asked[part])) + 1):
                chosen = [vectors[i - start] for i in named[mine]]
                sizes = torch.tensor([len(one) for one in chosen], device=device)
                tokens = torch.cat(chosen).to(device)
                found = maxsim.maxsim([queries[asked[mine[0]]]], tokens, sizes)[0]
                scores[mine] = found.cpu().numpy()
        found_any = np.isfinite(scores)
        ranked = rankings.rank(
            first.query_id[found_any], first.doc_id[found_any], scores[found_any]
        )
        return top(ranked, k)

    def _model(self) -> Any:
        """The encoder, a `MultiVectorEncoder`.

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

    def _encode(self, model: Any, texts: list[str], task: str) -> list[np.ndarray]:
        """Token vectors of texts, [n, D] float16 each."""
        import torch

        encode = model.encode_query if task == "query" else model.encode_document
        longest = self.passage_length or model[0].document_length or 256
        size = max(self.max_tokens // longest, 1)
        with torch.autocast(self._device(), torch.bfloat16, enabled=self.precision == "bf16"):
            found = encode(texts, batch_size=size, show_progress_bar=False)
        return [one.to(torch.float16).cpu().numpy() for one in found]

    def _queries(self, texts: list[str], model: Any = None) -> list[Any]:
        import torch

        found = self._encode(model or self._model(), texts, "query") if texts else []
        return [torch.from_numpy(one).to(self._device()) for one in found]

    def _device(self) -> str:
        import torch

        if self.device == "cuda" and not torch.cuda.is_available():
            raise ValueError("sampler.device='cuda': torch finds no CUDA device here")
        automatic = "cuda" if torch.cuda.is_available() else "cpu"
        return automatic if self.device == "auto" else self.device

    def _encoding(self) -> dict[str, Any]:
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
    named = (json.loads(Path(config).read_text()).get("architectures") or []) if config else []
    parts = [one["type"] for one in json.loads(Path(modules).read_text())] if modules else []
    native = any(one == "HF_ColBERT" or one.endswith("ForRetrieval") for one in named)
    if not native and not any(one.rpartition(".")[2] == "Dense" for one in parts):
        raise ValueError(
            f"sampler.model={model}: no late-interaction checkpoint, it has no projection of token "
            "vectors; sampler.kind=tokens takes the encoder's own"
        )


def _stored(folder: Path) -> Iterator[tuple[np.ndarray, list[int]]]:
    """The blocks that `ColBERT.prepare` wrote: token vectors, mapped, and tokens per passage."""
    for path in sorted(folder.glob("lengths.*.npy")):
        vectors = np.load(path.with_name(path.name.replace("lengths", "tokens")), mmap_mode="c")
        yield vectors, np.load(path).tolist()


def _cut(vectors: np.ndarray, lengths: list[int]) -> list[np.ndarray]:
    """Token vectors of each passage of a block."""
    return np.split(vectors, np.cumsum(lengths)[:-1])
