"""Describe a run in a file beside it, as ir-metadata has it (schema 0.1).

Breuer, Keller and Schaer (SIGIR 2022), *ir_metadata: An Extensible Metadata Schema for IR
Experiments*: platform, research goal, implementation, method, actor and data of a run. The file is
plain YAML; the lines that mark its beginning and end are comments, so that any reader takes it, and
the run itself stays one that trec_eval reads.
"""

from __future__ import annotations

import platform
import shlex
from collections.abc import Mapping, Sequence
from importlib.metadata import requires, version
from pathlib import Path
from typing import Any

import yaml
from packaging.requirements import Requirement

from rdx import config
from rdx.config import Config
from rdx.declared import CATALOGUED, marked
from rdx.facts import CollectionFacts, TrialFacts
from rdx.public import public, settings, shown
from rdx.tracking import environment

SCHEMA = 0.1  # of ir-metadata
ENDING = ".ir_metadata.yaml"
GB = 2**30
Described = dict[str, Any]


def write(run: Path, described: Described) -> None:
    """Write the description of a run beside it: NAME.ir_metadata.yaml of NAME.run.gz."""
    name = run.name.partition(".run")[0]
    text = yaml.safe_dump(described, sort_keys=False, allow_unicode=True, width=100)
    lines = f"# ir_metadata.start\n{text}# ir_metadata.end\n"
    (run.parent / f"{name}{ENDING}").write_text(lines, encoding="utf-8")


def of_trial(name: str, facts: TrialFacts, cfg: Config, overrides: Sequence[str]) -> Described:
    """Describe a run of an evaluation.

    Parameters
    ----------
    name
        Which run, as `rdx.artifacts.Evaluated` names it.
    facts
        Of the trial; an import is described without the platform, which nobody recorded.
    cfg
        Its configuration.
    overrides
        The command line that gave it.
    """
    collection, _, system = name.rpartition(".")
    tag = system
    if facts.imported is not None:
        collection, system = name, facts.imported.name
    about = facts.collections[collection]
    stages = _pipeline(system, about, facts, settings(cfg))
    measures = [str(measure) for measure in cfg["evaluation"]["measures"]]
    test = cfg["evaluation"]["collections"].get(collection, {}).get("data")
    data: Described = {"test collection": _collection(collection, test) | {"digest": about.digest}}
    if facts.training is not None:
        data["training data"] = [_collection(facts.levels.get("data", "data"), cfg["data"])]
    here = {} if facts.imported else _here(overrides)
    return described(tag, here, stages, data, measures, about.ties.rule, system != "oracle")


def of_labels(cfg: Config, overrides: Sequence[str] = ()) -> Described:
    """Describe a teacher's ranking of training candidates, which has the tag "rdx".

    Without the platform: labels may be older than the process that hands them on.
    """
    known = settings(cfg)
    stages = [
        {"name": "first_stage", "method": _class(known["sampler"]), "params": known["sampler"]},
        _reranker("teacher", known["teacher"], {"depth": known["depth"]}),
    ]
    data = {"training data": [_collection(_class(cfg["data"]), cfg["data"])]}
    implementation: Described = {"source": {"lang": ["python"], "rdx": version("rdx")}}
    if overrides:
        implementation["executable"] = {"cmd": _command(["teach", *overrides])}
    return described("rdx", {"implementation": implementation}, stages, data)


def described(
    tag: str,
    here: Described,
    stages: Sequence[Described],
    data: Described,
    measures: Sequence[str] = (),
    ties: str = "rank",
    automatic: bool = True,
) -> Described:
    """All of it in the schema's order; the actor's name is for the actor to fill in."""
    evaluation = {"reported measures": list(measures), "baseline": ["first_stage"]}
    known = {
        "schema-version": SCHEMA,
        "run-version": 1.0,
        "tag": tag,
        "platform": here.get("platform"),
        "research goal": {"evaluation": evaluation} if measures else None,
        "implementation": here.get("implementation"),
        "method": {"automatic": automatic, "score ties": ties, "retrieval": list(stages)},
        "actor": {"role": "experimenter"} if here else None,
        "data": data,
    }
    return {key: value for key, value in known.items() if value is not None}


def _pipeline(
    system: str, about: CollectionFacts, facts: TrialFacts, known: Config
) -> list[Described]:
    """The stages of a ranking, the first stage first."""
    first = dict(about.first_stage)
    stages: list[Described] = [
        {"name": "first_stage", "method": first.pop("engine", "unknown"), "params": first}
    ]
    if facts.imported is not None:
        file = {"source": facts.imported.source, "sha256": facts.imported.sha256}
        return [*stages, {"name": system, "params": file, "reranks": "first_stage"}]
    cut = {"k": about.k}
    if system == "oracle":
        stages.append(
            {"name": "oracle", "method": "order of the qrels", **cut, "reranks": "first_stage"}
        )
    elif system == "teacher":
        stages.append(_reranker("teacher", known["teacher"], cut))
    elif system != "first_stage":
        training = {
            group: known[group]
            for group in ("prefinetune", "loss", "teacher", "sampler", "depth", "budget", "trainer")
            if known.get(group) is not None and (known["loss"] or group == "prefinetune")
        }
        more = {**cut, "training": training, "seed": facts.seed, "signature": facts.signature}
        stages.append(_reranker("student", known["student"], more))
    if system == "student+first_stage":
        stages.append(
            {"name": system, "interpolates": ["student", "first_stage"], "weight": about.weight}
        )
    return stages


def _reranker(name: str, node: Config, more: Described) -> Described:
    own = {key: value for key, value in node.items() if key != "_target_"}
    return {"name": name, "method": _class(node), "params": own, **more, "reranks": "first_stage"}


def _class(node: Config) -> str:
    return str(node.get("_target_", "")).rpartition(".")[2]


def _collection(name: str, node: Config | None) -> Described:
    """A data set by its name, where it comes from, and its id in ir_datasets if it has one."""
    if node is None:  # pooled of several
        return {"name": name}
    ids = [str(node[key]) for key in marked(config.class_of(node), CATALOGUED) if key in node]
    source = {key: value for key, value in public(node).items() if key != "_target_"}
    known: Described = {"name": name, "source": f"{_class(node)}: {source}"}
    return known | ({"ir_datasets": ids[0]} if ids else {})


def _here(overrides: Sequence[str]) -> Described:
    """Platform and implementation of this process; nothing that names the machine or its user."""
    known = environment()
    cpu = {
        "model": known["cpu"],
        "architecture": platform.machine(),
        "number of cores": known["cores"],
    }
    hardware: Described = {"cpu": cpu, "ram": f"{known['memory_bytes'] / GB:.0f} GB"}
    if known["gpus"]:
        memory = known["gpu_memory_bytes"][0] / GB
        hardware["gpu"] = {"architecture": ", ".join(known["gpus"]), "ram": f"{memory:.0f} GB"}
    source: Described = {"lang": ["python"], "commit": known["git"]["commit"]}
    if known["git"]["dirty"]:
        source["uncommitted changes"] = True
    return {
        "platform": {
            "hardware": hardware,
            "operating system": {
                "kernel": f"{platform.system()} {platform.release()}",
                "distribution": known["platform"],
            },
            "software": {
                "libraries": {"python": _libraries(known["packages"])},
                "retrieval toolkit": [f"rdx=={version('rdx')}"],
            },
        },
        "implementation": {"executable": {"cmd": _command(overrides)}, "source": source},
    }


def _command(words: Sequence[str]) -> str:
    """A command line of rdx; of a path in it the name alone."""
    parts = [word.partition("=") for word in words]
    public_words = [f"{key}{equals}{shown(value)}" for key, equals, value in parts]
    return shlex.join(["python", "-m", "rdx", *public_words])


def _libraries(packages: Mapping[str, str]) -> list[str]:
    """Those that rdx itself requires, with their versions."""
    needed = {
        requirement.name.lower()
        for text in requires("rdx") or ()
        if (requirement := Requirement(text)).marker is None or requirement.marker.evaluate()
    }
    named = {name.lower(): f"{name}=={version}" for name, version in packages.items()}
    return sorted(named[name] for name in needed & set(named))
