"""Build and check ranking tables and qrels; read and write TREC and parquet files.

A ranking is a data frame with the columns `query_id` (str), `doc_id` (str), `rank` (int32,
1 = best, dense) and `score` (float32, finite). The rows of a query are contiguous and in rank
order; queries keep the order of their first appearance.

Ties follow trec_eval everywhere: score descending, then doc id descending. trec_eval holds
scores as 32-bit floats and compares doc ids byte by byte; both hold here too.

What does not fit into memory goes as a stream of blocks, each a ranking of whole queries:
`stream_trec` reads such blocks, `store_ranking` writes them, `StoredRanking` looks lists up.
"""

from rdx.rankings.ids import alike, one_word, shown
from rdx.rankings.lookup import StoredRanking, read_parquet, store_ranking, write_parquet
from rdx.rankings.order import joined
from rdx.rankings.scales import SCALES, Scale, scaled
from rdx.rankings.table import (
    COLUMNS,
    STATES,
    USABLE,
    Content,
    FormatError,
    check,
    content,
    rank,
    without_own,
    z_scores,
)
from rdx.rankings.text import line_of, line_with
from rdx.rankings.trec import (
    MISRANKED,
    has_header,
    read_qrels,
    read_trec,
    stream_trec,
    write_trec,
)

__all__ = [
    "COLUMNS",
    "MISRANKED",
    "SCALES",
    "STATES",
    "USABLE",
    "Content",
    "FormatError",
    "Scale",
    "StoredRanking",
    "alike",
    "check",
    "content",
    "has_header",
    "joined",
    "line_of",
    "line_with",
    "one_word",
    "rank",
    "read_parquet",
    "read_qrels",
    "read_trec",
    "scaled",
    "shown",
    "store_ranking",
    "stream_trec",
    "without_own",
    "write_parquet",
    "write_trec",
    "z_scores",
]
