"""`python -m rdx data`: MS MARCO in small over a loopback server, and the released rankings."""

import functools
import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pandas as pd
import pytest

from rdx import config, fetching, rankings
from rdx.data import Collection, rank_distillm
from rdx.data.download import DownloadError
from rdx.data.rank_distillm import File, Released
from rdx.rankings import FormatError
from rdx.samplers import Recorded as Candidates
from rdx.teachers import Recorded

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT.parent / "shared" / "data" / "rank-distillm-sample"
MSMARCO = "data=msmarco"


@pytest.fixture
def shelf(tmp_path):
    """A folder, served; `asked` are the paths that were asked for, in order."""
    folder, asked = tmp_path / "shelf", []

    class Handler(SimpleHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            super().do_GET()

        def log_message(self, *_):
            pass

    handler = functools.partial(Handler, directory=str(folder))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield folder, f"http://127.0.0.1:{server.server_address[1]}", asked
    server.shutdown()
    server.server_close()


def run(shelf, tmp_path, *arguments, small="small_msmarco.py", **more):
    """`python -m rdx ARGUMENTS` where MS MARCO, or another collection, is small."""
    folder, address, _ = shelf
    script = Path(__file__).with_name(small)
    settings = {"IR_DATASETS_HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT)}
    single = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, str(script), str(folder), "--url", address, *arguments],
        cwd=tmp_path,
        env=os.environ | settings | single | more,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=300,
    )


@pytest.mark.slow
def test_msmarco_is_fetched_checked_and_loaded(shelf, tmp_path):
    """The whole way, in the formats and with the code of ir_datasets."""
    before = run(shelf, tmp_path, MSMARCO)  # a cell
    assert before.returncode == 1
    assert (
        "not fetched yet, and no cell downloads anything: ir_datasets:msmarco-passage/train/judged"
        "\n  run first: python -m rdx data fetch data=msmarco"
    ) in before.stderr
    assert shelf[2] == []  # nothing was asked of the server
    done = run(shelf, tmp_path, "data", "fetch", MSMARCO, "--accept-licence")
    assert done.returncode == 0, done.stderr
    names = ["/collectionandqueries.tar.gz", "/queries.tar.gz", "/qrels.train.tsv"]
    assert sorted(shelf[2]) == sorted(names)
    assert "MSMARCO data usage agreement" in done.stdout
    table = done.stdout.splitlines()[-1].split()
    assert table[:2] == ["ir_datasets:msmarco-passage/train/judged", "yes"] and table[-1] == "yes"
    [note] = (tmp_path / "home" / "rdx").glob("*judged.json")
    assert json.loads(note.read_text())["counts"] == {"docs": 60, "queries": 30, "qrels": 30}

    code = (
        "from rdx.data import IrDatasets; c = IrDatasets('msmarco-passage/train/judged', .2);"
        "t, d = c.load('train'), c.load('dev');"
        "known = t.holds(['14', '60', '1' * 9, '0', '']).tolist();"
        "print(len(t.queries), len(d.queries), len(t.passages), t.passages['14'], t.counts, known)"
    )
    settings = {"IR_DATASETS_HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT)}
    loaded = subprocess.run(  # now with ir_datasets as it is: no address leads anywhere
        [sys.executable, "-c", code], env=os.environ | settings, capture_output=True, text=True
    )
    train, dev, size, text = loaded.stdout.split(maxsplit=3)
    assert int(train) + int(dev) == 30 and int(dev) > 0 and size == "60"
    assert text.startswith("basil basil passage 14 caf\u00e9 {")  # its encoding repaired
    assert "'qrels_without_query': 0" in text
    assert text.rstrip().endswith("[True, False, False, True, False]")


@pytest.mark.slow
def test_beir_and_nanobeir_are_fetched_and_tested(shelf, tmp_path):
    """Their own downloads, through the options that have thirteen such collections each."""
    beir = partial(run, shelf, tmp_path, small="small_beir.py")
    ids = ("data=ir_datasets", "data.id=beir/scifact/test", "evaluation=ir_datasets")
    other = "evaluation.collections.ir_datasets.data.id=nano-beir/scifact"
    done = beir("data", "fetch", *ids, other, "--accept-licence")
    assert done.returncode == 0, done.stderr
    files = {"/beir.zip", *(f"/nano.{part}.parquet" for part in ("docs", "queries", "qrels"))}
    assert set(shelf[2]) == files
    # the passage of query 0 is second, of all others first
    rows = [f"{q} Q0 {d} {r} {9 - r} x\n" for q in range(8) for r, d in enumerate((q, 11))]
    rows[:2] = ["0 Q0 11 0 9 x\n", "0 Q0 0 1 8 x\n"]
    (tmp_path / "some.run").write_text("".join(rows))
    for option, queries in (("beir", 8), ("nanobeir", 6)):
        measures = ("--measures", "RR@10", "--out", f"{option}.parquet")
        words = ("evaluate", "some.run", "--collection", f"evaluation={option}", "scifact")
        told = beir(*words, *measures)
        assert told.returncode == 0, told.stderr
        values = pd.read_parquet(tmp_path / f"{option}.parquet").set_index("query_id").value
        assert len(values) == queries and values["0"] == 0.5 and (values.drop("0") == 1).all()


@pytest.mark.slow
def test_what_keeps_msmarco_from_being_right(shelf, tmp_path):
    refused = run(shelf, tmp_path, "data", "fetch", MSMARCO)
    assert refused.returncode == 1 and "give --accept-licence" in refused.stderr
    assert "MSMARCO data usage agreement" in refused.stdout and shelf[2] == []

    topics = run(
        shelf, tmp_path, "data", "fetch", MSMARCO, "--accept-licence", "--without-passages"
    )
    assert topics.returncode == 0, topics.stderr
    assert sorted(shelf[2]) == ["/qrels.train.tsv", "/queries.tar.gz"]
    cell = run(shelf, tmp_path, MSMARCO)
    assert cell.returncode == 1 and "run first: python -m rdx data fetch" in cell.stderr

    more = run(shelf, tmp_path, "data", "fetch", MSMARCO, "--accept-licence", TOO_MANY="1")
    assert more.returncode == 1
    assert "60 docs, ir_datasets expects 61" in more.stderr
    done = run(shelf, tmp_path, "data", "fetch", MSMARCO, "--accept-licence")
    assert done.returncode == 0, done.stderr
    assert len(shelf[2]) == 3  # once each, although a try failed

    right = run(shelf, tmp_path, "data", "verify", MSMARCO)
    assert right.returncode == 0 and "judged: ok" in right.stdout
    path = tmp_path / "home" / "msmarco-passage" / "train" / "queries.tsv"
    text = path.read_text()
    path.write_text(text.replace("amber", "ambre"))
    wrong = run(shelf, tmp_path, "data", "verify", MSMARCO)
    assert wrong.returncode == 1 and "queries.tsv: md5" in wrong.stdout
    path.write_text(text[:-4])
    gone = run(shelf, tmp_path, "data", "status", MSMARCO)
    assert gone.stdout.splitlines()[-1].split()[1] == "no"


@pytest.mark.slow
def test_of_two_processes_one_fetches(shelf, tmp_path):
    command = ("data", "fetch", MSMARCO, "--accept-licence")
    run(shelf, tmp_path, "data", "status", MSMARCO)  # writes the shelf's files
    done = []
    threads = [
        threading.Thread(target=lambda: done.append(run(shelf, tmp_path, *command)))
        for _ in range(2)
    ]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert [one.returncode for one in done] == [0, 0], done
    assert len(shelf[2]) == 3


@pytest.mark.slow
def test_a_wrong_archive_is_refused_with_both_sums(shelf, tmp_path):
    import small_msmarco

    shelf[0].mkdir()
    data = small_msmarco.files()
    for name, one in data.items():
        (shelf[0] / name).write_bytes(one)
    place = tmp_path / "home" / "msmarco-passage" / "queries.tar.gz"
    place.parent.mkdir(parents=True)
    place.write_bytes(b"another file")  # put there by hand
    done = run(shelf, tmp_path, "data", "fetch", MSMARCO, "--accept-licence")
    assert done.returncode == 1
    sums = [hashlib.md5(one).hexdigest() for one in (b"another file", data["queries.tar.gz"])]
    assert f"md5 {sums[0]}, ir_datasets expects {sums[1]}" in done.stderr


@pytest.mark.slow
def test_a_cell_trains_on_small_msmarco(shelf, tmp_path, world):
    done = run(shelf, tmp_path, "data", "fetch", MSMARCO, "--accept-licence")
    assert done.returncode == 0, done.stderr
    before = list(shelf[2])
    files = world.overrides(tmp_path / "store")
    kept = [one for one in files if not one.startswith(("data", "evaluation.interpolate"))]
    done = run(shelf, tmp_path, MSMARCO, "data.dev=0.2", *kept)
    assert done.returncode == 0, done.stderr
    assert "health:" in done.stdout and shelf[2] == before


def test_what_a_command_line_needs():
    [cell] = config.cells(["data=msmarco", "sampler=rd_bm25", "teacher=paper"])
    found = fetching.needs([cell.cfg, cell.cfg])
    assert [one.name for one in found] == [
        "ir_datasets:msmarco-passage/train/judged",
        "data/rank-distillm/rd-bm25.run",
        "data/rank-distillm/rd-bm25.run.teacher",
    ]
    first, teacher = found[1:]
    assert [path.name for path in teacher.parts()] == [
        "__rankzephyr-bm25-10000-sampled-100__msmarco-passage-train-judged.run"
    ]
    assert [path.name for path in first.parts()] == [
        "__bm25__msmarco-passage-train-judged.run",
        teacher.parts()[0].name,
    ]
    assert not File(Path("my.run")).known()
    [cell] = config.cells([])
    assert fetching.needs([cell.cfg]) == []
    fetching.require([cell.cfg], [])


def ranked(queries, docs, step=1):
    """A run: every list d0, d1, .. in steps, scores falling."""
    return "".join(
        f"{q} Q0 d{i * step} {i + 1} {docs - i} x\n" for q in queries for i in range(docs)
    )


@pytest.fixture
def few(shelf, monkeypatch):
    """The released files in small: 3 of 5 queries, 4 of 8 candidates."""
    folder, address, _ = shelf
    folder.mkdir()
    end = rank_distillm.END
    texts = {
        f"__bm25{end}.run": ranked("12345", 8),
        f"{rank_distillm._ranked('bm25', 100)}.run": "".join(
            f"{q} Q0 d{i} {r} {9 - r} x\n" for q in "531" for r, i in enumerate((6, 0, 2, 4), 1)
        ),
    }
    known = {}
    for name, text in texts.items():
        (folder / name).write_text(text)
        size = (5, 8) if name.startswith("__bm25") else (3, 4)
        known[name] = Released(
            f"{address}/{name}",
            ("0" * 32, hashlib.md5(text.encode()).hexdigest()),
            len(text),
            (size[0], size[0]),
            size[1],
        )
    monkeypatch.setattr(rank_distillm, "RELEASED", known)
    return known


def test_released_files_are_fetched_and_cut_out(few, tmp_path, shelf):
    candidates, teacher = (
        File(tmp_path / "data" / name) for name in ("rd-bm25.run", "rd-bm25.run.teacher")
    )
    assert [address for address, _ in candidates.lacking()] == [one.address for one in few.values()]
    assert not candidates.present() and "MS MARCO" in candidates.licences()[0]
    for one in (candidates, teacher):
        one.fetch()
        assert one.present() and one.verified() and one.lacking() == [] and one.verify() == []
    assert len(shelf[2]) == 2
    rows = rankings.read_trec(candidates.path, order="rank")
    assert rows.query_id.drop_duplicates().tolist() == ["1", "3", "5"]
    assert rows.doc_id.tolist() == ["d0", "d2", "d4", "d6"] * 3  # the first stage's order
    taught = Recorded(str(teacher.path)).rank(rows, None, tmp_path)
    one = taught[taught.query_id == "3"].sort_values("teacher_rank")
    assert one.doc_id.tolist() == ["d6", "d0", "d2", "d4"]
    candidates.path.write_text(candidates.path.read_text().replace("1 Q0 d0 1", "1 Q0 dx 1"))
    assert any("content" in problem for problem in candidates.verify())
    candidates.path.write_text("1 Q0 d0 1 1 x\n")
    assert not candidates.present()


def test_released_files_that_hold_something_else_are_refused(few, tmp_path, shelf, monkeypatch):
    name = f"{rank_distillm._ranked('bm25', 100)}.run"
    path = tmp_path / name
    path.write_text(ranked("1", 4))  # by hand
    with pytest.raises(DownloadError, match=f"md5 [0-9a-f]+, expected {'0' * 32} or "):
        File(path).fetch()
    path.unlink()
    for expected, message in (
        ((4, 4, 4), "3 lists, the longest of 4 passages; expected 4 lists, the longest of 4"),
        ((3, 3, 5), "expected 3 lists, the longest of 5"),
        ((1, 2, 4), "expected 1 to 2 lists"),
    ):
        old = few[name]
        new = Released(old.address, old.md5, old.size, expected[:2], expected[2])
        monkeypatch.setitem(few, name, new)
        with pytest.raises(FormatError, match=message):
            File(path).fetch()
        assert not File(path).verified()
        monkeypatch.setitem(few, name, old)
    File(path).fetch()
    with pytest.raises(DownloadError, match="no address of it is known"):
        File(tmp_path / "my.run").fetch()


def test_files_that_are_there_are_not_fetched_again(few, tmp_path, shelf, capsys):
    """A released file put there by hand is checked; one that somebody made is left alone."""
    name = f"{rank_distillm._ranked('bm25', 100)}.run"
    mine, theirs = File(tmp_path / "rd-bm25.run"), File(tmp_path / name)
    mine.path.write_text(ranked("1", 2))
    theirs.path.write_bytes((shelf[0] / name).read_bytes())
    assert theirs.unchecked() and not mine.unchecked()
    fetching._fetch([mine, theirs], accepted=True)
    assert shelf[2] == [] and theirs.verified() and not theirs.unchecked()
    assert rankings.read_trec(mine.path).query_id.tolist() == ["1", "1"]


def test_a_pair_that_the_first_stage_lacks_is_an_error(tmp_path):
    (tmp_path / "first").write_text(ranked("12", 2))
    (tmp_path / "teacher").write_text("1 Q0 d1 1 1 x\n2 Q0 d7 1 1 x\n")
    with pytest.raises(FormatError, match=r"lacks passage 'd7' of query '2'.* \(and 0 other"):
        rank_distillm.cut_out(tmp_path / "first", tmp_path / "teacher", tmp_path / "out")


def test_the_table_says_what_is_lacking(few, tmp_path):
    there = tmp_path / "mine.run"
    there.write_text(ranked("1", 2))
    found = [File(tmp_path / "rd-bm25.run"), File(there), File(tmp_path / "other.run")]
    rows = [line.split() for line in fetching.table(found).splitlines()]
    assert rows[0][0] == "needed"
    assert rows[1][1:3] == ["no", "-"] and rows[1][-1] == "no"
    assert rows[2][1:] == ["yes", f"{there.stat().st_size}", "B", "by", "hand", "no"]
    assert rows[3][1:] == ["no", "-", "by", "hand", "no"]


def test_fetch_goes_on_with_the_others_and_names_what_failed(few, tmp_path, monkeypatch, capsys):
    command = ["data=files", f"data.corpus={tmp_path / 'c.tsv'}", f"data.queries={tmp_path}/q.tsv"]
    command += ["sampler=recorded", f"sampler.run={tmp_path / 'nowhere.run'}"]
    command += ["teacher=recorded", f"teacher.run={tmp_path / 'rd-bm25.run.teacher'}"]
    with pytest.raises(SystemExit, match="1 of 2 could not be fetched"):
        fetching.data(["fetch", *command, "--accept-licence"])
    assert (tmp_path / "rd-bm25.run.teacher").is_file()
    with pytest.raises(SystemExit, match="1 of 2 are not as they must be"):
        fetching.data(["verify", *command])
    fetching.data(["status", *command])
    assert "by hand" in capsys.readouterr().out
    monkeypatch.setattr("sys.stdin", open(os.devnull))
    (tmp_path / "rd-bm25.run.teacher").unlink()
    with pytest.raises(SystemExit, match="accept-licence"):
        fetching.data(["fetch", *command])
    fetching.data(["status"])
    assert "nothing that these cells need" in capsys.readouterr().out


def test_the_released_files_are_on_the_page_and_have_sums():
    page = (ROOT / "docs" / "data.md").read_text()
    for name, known in rank_distillm.RELEASED.items():
        assert Path(name).stem in page and all(len(one) == 32 for one in known.md5), name
        assert known.address.startswith(("https://zenodo.org/records/", "https://huggingface.co/"))
        assert name in known.address


def test_the_commands_of_the_page_compose():
    page = (ROOT / "docs" / "data.md").read_text().replace("\\\n", " ")
    blocks = "\n".join(page.split("```")[1::2])
    found = [line.split("rdx", 1)[1].split() for line in blocks.splitlines() if " -m rdx" in line]
    assert len(found) >= 9
    for words in found:
        overrides = [word for word in words if "=" in word]
        assert len(config.cells(overrides)) == (6 if "-m" in words else 1), words


@pytest.mark.skipif(not SAMPLE.exists(), reason="the sample of Rank-DistiLLM is not here")
def test_a_piece_of_the_released_ranking(tmp_path):
    """The form of the released files: as run and as parquet the teacher's lists are the same."""
    run = SAMPLE / "rankzephyr-colbert-100.run"
    given = rankings.read_trec(run, order="rank")
    held = rankings.content(rankings.stream_trec(run, order="rank"))
    assert (held.queries, held.longest, held.rows) == (100, 100, len(given))
    stored = tmp_path / "sample.parquet"
    rankings.store_ranking(rankings.stream_trec(run, order="rank"), stored)
    again = rankings.content(rankings.StoredRanking(stored).blocks())
    assert again.permutation_hash == held.permutation_hash
    # candidates: some queries, in another order than the teacher's
    chosen = given[given.query_id.isin(sorted(given.query_id.unique())[:7])]
    candidates = rankings.rank(chosen.query_id, chosen.doc_id, chosen["rank"])
    expected = chosen.set_index(["query_id", "doc_id"])["rank"].sort_index()
    for path in (run, stored):
        taught = Recorded(str(path)).rank(candidates, None, tmp_path)
        assert set(taught.state) == {"ok"}
        found = taught.set_index(["query_id", "doc_id"]).teacher_rank.sort_index()
        assert (found == expected).all()
        scored = Recorded(str(path), order="score").rank(candidates, None, tmp_path)
        assert scored.score.notna().all()
    # the file as both, first stage and teacher: its own order comes out
    texts = dict.fromkeys(given.doc_id, "text")
    collection = Collection("x", dict.fromkeys(given.query_id, "query"), texts, None)
    for path in (run, stored):
        found = Candidates(str(path), order="rank").candidates(collection, 50)
        assert len(found) == 5000
        taught = Recorded(str(path)).rank(found, None, tmp_path)
        assert (taught.teacher_rank.to_numpy() == found["rank"].to_numpy()).all()
    shutil.copy(run, tmp_path / "other.run")
    assert File(tmp_path / "other.run").verify() == []
