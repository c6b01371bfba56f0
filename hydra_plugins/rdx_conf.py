"""Let Hydra find options and experiments where `rdx.folders` says that they lie."""

from __future__ import annotations

from pathlib import Path

from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra.core.config_search_path import ConfigSearchPath, SearchPathElement
from hydra.core.config_store import ConfigStore
from hydra.core.object_type import ObjectType
from hydra.plugins.config_source import ConfigResult
from hydra.plugins.search_path_plugin import SearchPathPlugin

from rdx import folders


class HomeSource(FileConfigSource):
    """The groups of one folder: those of its conf/, and its experiments/.

    The root file, conf/config.yaml, is rdx's alone: the working folder may hold a conf/ of another
    program. An experiment is also found by the path of its file, wherever that lies.
    """

    @staticmethod
    def scheme() -> str:
        """Of the search path: rdx:///home/me/study."""
        return "rdx"

    def available(self) -> bool:
        """Always: `rdx.folders` has looked."""
        return True

    def is_group(self, config_path: str) -> bool:
        """Whether the folder has such a group."""
        return folders.place(Path(self.path), config_path).is_dir()

    def is_config(self, config_path: str) -> bool:
        """Whether the folder has such an option."""
        taken = "/" in config_path or self.path == str(folders.ROOT)
        return taken and self._file(config_path).is_file()

    def load_config(self, config_path: str) -> ConfigResult:
        """Read an option; an experiment speaks of the whole configuration."""
        from rdx.config.files import read  # Hydra imports plugins at every start of any program

        file = self._file(config_path)
        config = read(file)
        header = self._get_header_dict(file.read_text(encoding="utf-8"))
        if config_path.startswith(f"{folders.EXPERIMENTS}/"):
            header["package"] = "_global_"
        return ConfigResult(self.provider, self.path, config, header)

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        """Groups and options below a group."""
        folder = folders.place(Path(self.path), config_path)
        names: list[str] = []
        if results_filter in (None, ObjectType.GROUP) and folder.is_dir():
            groups = [path for path in folder.iterdir() if path.is_dir()]
            prompts = folders.place(Path(self.path), folders.PROMPTS)
            names += [path.name for path in groups if path != prompts]
            if not config_path and self.is_group(folders.EXPERIMENTS):
                names.append(folders.EXPERIMENTS)
        if results_filter in (None, ObjectType.CONFIG):
            names += [path.stem for path in folder.glob("[!_]*.yaml")]
        return sorted(names)

    def _file(self, config_path: str) -> Path:
        path = config_path.removeprefix(f"{folders.EXPERIMENTS}/")
        if path != config_path and path.endswith(".yaml"):
            return Path(path)
        return folders.place(Path(self.path), self._normalize_file_name(config_path))


class Homes(SearchPathPlugin):
    """Searches the working folder, then rdx's; nothing changes for other programs.

    Launchers of conf/hydra/launcher win over installed plugins of the same names: Hydra would check
    our settings against the schemas that those plugins have registered.
    """

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Put these folders in the place of conf/; Hydra has imported all plugins before."""
        path = search_path.get_path()
        for i, element in enumerate(path):
            if element.provider == "main" and element.path.endswith(str(folders.CONF)):
                homes = folders.homes()
                elements = [SearchPathElement("own", f"rdx://{home}") for home in homes[:-1]]
                path[i : i + 1] = [*elements, SearchPathElement("main", f"rdx://{homes[-1]}")]
                others = ConfigStore.instance().repo.get("hydra", {}).get("launcher", {})
                for name in folders.options("hydra/launcher"):
                    others.pop(f"{name}.yaml", None)
