"""What no file of the project may do: unpickle, evaluate, trust, or extract blindly."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted(
    path
    for folder in ("rdx", "analysis", "hydra_plugins")
    for path in (ROOT / folder).rglob("*.py")
)
# What is right although it looks wrong; docs/security.md says why.
EXCEPTIONS = {
    ("rdx/config/composing.py", "imports pickle"),  # bytes that the same process made, as a copy
    ("rdx/artifacts.py", "yaml.load"),  # with the safe loader in C, or else the safe one in Python
}
MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "_pickle"}
CALLS = {
    *("eval", "exec", "os.system", "os.popen", "tempfile.mktemp", "pd.read_pickle"),
    *("yaml.load", "yaml.load_all", "yaml.full_load", "yaml.unsafe_load", "yaml.Loader"),
    *("hydra.utils.instantiate", "instantiate", "subprocess.getoutput", "joblib.load"),
}
# A keyword that must not have any other value than this.
ONLY = {"trust_remote_code": False, "allow_pickle": False, "shell": False, "verify": True}
TRUST = "TRUST"  # of rdx.assets: its own value is tested below


def wrong(source):
    """What a text does that it must not."""
    tree = ast.parse(source)
    faults = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names += [f"{node.module}.{alias.name}" for alias in node.names]
            banned = (n for n in names if n.split(".")[0] in MODULES or n in CALLS)
            faults |= {f"imports {name}" for name in banned}
        elif isinstance(node, ast.Call):
            faults |= _wrong_call(node)
        elif isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if isinstance(key, ast.Constant) and key.value in ONLY:
                    faults |= _wrong_value(str(key.value), value)
    return faults


def _wrong_call(node):
    name = ast.unparse(node.func)
    last = name.rpartition(".")[2]
    named = {keyword.arg: keyword.value for keyword in node.keywords if keyword.arg}
    spread = [ast.unparse(keyword.value) for keyword in node.keywords if keyword.arg is None]
    faults = {name} if name in CALLS else set()
    for key in ONLY.keys() & named.keys():
        faults |= _wrong_value(key, named[key])
    if name == "torch.load" and not _is(named.get("weights_only"), True):
        faults.add("torch.load without weights_only=True")
    if last in ("extractall", "extract") and not _is(named.get("filter"), "data"):
        faults.add(f"{last} without filter='data'")
    if last == "from_pretrained" and name.startswith("Auto"):
        if "trust_remote_code" not in named and TRUST not in spread:
            faults.add("from_pretrained without trust_remote_code=False")
        loads = "Model" in name
        if loads and not _is(named.get("weights_only"), True) and TRUST not in spread:
            faults.add("from_pretrained without weights_only=True")
    return faults


def _wrong_value(key, value):
    return set() if _is(value, ONLY[key]) else {f"{key}={ast.unparse(value)}"}


def _is(node, value):
    if not isinstance(node, ast.Constant):
        return False
    return node.value == value if isinstance(value, str) else node.value is value


@pytest.mark.parametrize(
    "source, told",
    [
        ("import pickle", "imports pickle"),
        ("from pickle import loads", "imports pickle.loads"),
        ("from joblib import load", "imports joblib.load"),
        ("from os import path, system", "imports os.system"),
        ("def f():\n    import dill.source", "imports dill.source"),
        ("eval('1')", "eval"),
        ("exec(text)", "exec"),
        ("yaml.load(text, yaml.Loader)", "yaml.load"),
        ("torch.load(path)", "torch.load without weights_only=True"),
        ("torch.load(path, weights_only=False)", "torch.load without weights_only=True"),
        ("torch.load(path, weights_only=flag)", "torch.load without weights_only=True"),
        ("np.load(path, allow_pickle=True)", "allow_pickle=True"),
        ("subprocess.run(command, shell=True)", "shell=True"),
        ("subprocess.run(command, shell=flag)", "shell=flag"),
        ("f(trust_remote_code=True)", "trust_remote_code=True"),
        ("f(**{'trust_remote_code': True})", "trust_remote_code=True"),
        ("tar.extractall(folder)", "extractall without filter='data'"),
        ("tar.extractall(folder, filter='fully_trusted')", "extractall without filter='data'"),
        ("zip.extract(one, folder)", "extract without filter='data'"),
        ("AutoConfig.from_pretrained(x)", "from_pretrained without trust_remote_code=False"),
        (
            "AutoModel.from_pretrained(x, trust_remote_code=False)",
            "from_pretrained without weights_only=True",
        ),
        ("hydra.utils.instantiate(cfg)", "hydra.utils.instantiate"),
        ("requests.get(address, verify=False)", "verify=False"),
    ],
)
def test_what_is_wrong_is_found(source, told):
    assert wrong(source) == {told}


@pytest.mark.parametrize(
    "source",
    [
        "from joblib.externals.loky import get_reusable_executor",
        "yaml.safe_load(text)",
        "model.eval()",
        "torch.load(path, map_location='cpu', weights_only=True)",
        "np.load(path, mmap_mode='r')",
        "tar.extractall(folder, filter='data')",
        "tar.extractfile(member)",
        "AutoTokenizer.from_pretrained(x, trust_remote_code=False)",
        "AutoModel.from_pretrained(x, **TRUST, **more)",
        "type(model).from_pretrained(x)",
        "'trust_remote_code=True'",
    ],
)
def test_what_is_right_is_left_alone(source):
    assert wrong(source) == set()


def test_no_file_does_it():
    assert len(FILES) > 100
    faults = {
        (str(path.relative_to(ROOT)), told)
        for path in FILES
        for told in wrong(path.read_text(encoding="utf-8"))
    }
    assert faults == EXCEPTIONS


def test_trust_is_none():
    from rdx.assets import TRUST

    assert TRUST == {"trust_remote_code": False, "weights_only": True}
