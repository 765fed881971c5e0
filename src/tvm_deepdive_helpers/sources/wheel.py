"""The installed packages ``tvm`` and ``tvm_ffi`` as folders of source: found, but never imported."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path

from .common import SourceError

PACKAGES = ("tvm", "tvm_ffi")
_DISTRIBUTIONS = {"tvm": "apache-tvm", "tvm_ffi": "apache-tvm-ffi"}
_REPOSITORIES = {
    "tvm": "https://github.com/apache/tvm",
    "tvm_ffi": "https://github.com/apache/tvm-ffi",
}
_PROJECTS = {"tvm": "TVM", "tvm_ffi": "tvm-ffi"}
# Not part of TVM's repositories although the wheel ships them: no link to a line is possible.
_FOREIGN = ("3rdparty/", "include/dlpack/")


@dataclass(frozen=True)
class Package:
    """One installed package.

    Attributes
    ----------
    name
        Import name.
    root
        Its folder.
    version
        Version of the distribution.
    commit
        Abbreviated commit that the wheel says it was built from; empty if it does not say.
    """

    name: str
    root: Path
    version: str
    commit: str

    @property
    def repository(self) -> str:
        """Web address of the repository."""
        return _REPOSITORIES[self.name]

    @property
    def project(self) -> str:
        """What readers call it."""
        return _PROJECTS[self.name]

    @property
    def ref(self) -> str:
        """Tag of this release in the repository.

        Both projects derive the version from the tag, so a version without ``.dev`` means that the
        wheel was built on the tag. They write a post-release in two ways: TVM ``v0.25.0.post1``,
        tvm-ffi ``v0.1.13-post2``.
        """
        if ".dev" in self.version and self.commit:
            return self.commit
        version = self.version.partition("+")[0]
        if self.name == "tvm_ffi":
            version = re.sub(r"\.post(\d+)$", r"-post\1", version)
        return f"v{version}"

    def repository_path(self, relative: str) -> str:
        """Where a file of the package stands in the repository.

        Parameters
        ----------
        relative
            Path below the package's folder, with ``/``.
        """
        if relative.startswith(("include/", "src/", "cmake/", "3rdparty/", "web/")):
            return relative
        return f"python/{self.name}/{relative}"

    def is_foreign(self, relative: str) -> bool:
        """True for files of other projects, which the repository holds as submodules."""
        return relative.startswith(_FOREIGN)


def find_package(name: str) -> Package:
    """Find an installed package without executing any of it.

    Raises
    ------
    SourceError
        If it is not installed.
    """
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise SourceError(f"the package {name} is not installed, so its source cannot be cited")
    root = Path(next(iter(spec.submodule_search_locations)))
    try:
        version = importlib.metadata.version(_DISTRIBUTIONS[name])
    except importlib.metadata.PackageNotFoundError:
        version = "0+unknown"
    commit = ""
    stamp = root / "_version.py"
    if stamp.is_file():
        match = re.search(r"commit_id\s*=\s*'g?([0-9a-f]{7,40})'", stamp.read_text("utf-8"))
        commit = match.group(1) if match else ""
    return Package(name, root, version, commit)


@dataclass(frozen=True)
class Wheels:
    """The two packages together, and the paths that authors write."""

    packages: dict[str, Package]

    @classmethod
    def installed(cls) -> Wheels:
        """Both packages of this environment."""
        return cls({name: find_package(name) for name in PACKAGES})

    def cpp_file(self, path: str) -> tuple[Package, str] | None:
        """The package that ships a C++ file, and the path below its folder; None if none does.

        ``tvm_ffi/include/...`` is tvm-ffi's; all else is relative to TVM's repository.
        """
        name, relative = "tvm", path
        if path.startswith("tvm_ffi/"):
            name, relative = "tvm_ffi", path.removeprefix("tvm_ffi/")
        package = self.packages.get(name)
        if package is None or ".." in relative.split("/"):
            return None
        return (package, relative) if (package.root / relative).is_file() else None
