"""A wheel or an sdist holds every file of the package, and nothing that is importable as `kernels`."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path


def expected() -> set[str]:
    """Python files of the package as git knows them, at the paths that a wheel has."""
    tracked = subprocess.run(["git", "ls-files"], check=True, capture_output=True, text=True).stdout.split()
    files = {name for name in tracked if name.startswith("pykernels/") and name.endswith((".py", "py.typed"))}
    for folder in ("kernels", "bench"):
        files |= {f"pykernels/{name}" for name in tracked if name.startswith(f"{folder}/") and name.endswith(".py")}
    return files


def contents(path: Path) -> set[str]:
    if path.suffix == ".whl":
        return set(zipfile.ZipFile(path).namelist())
    with tarfile.open(path) as archive:
        return {name.partition("/")[2] for name in archive.getnames()}


def main(paths: list[str]) -> None:
    for path in map(Path, paths):
        names = contents(path)
        missing = sorted(expected() - names)
        if missing:
            raise SystemExit(f"{path.name} lacks {', '.join(missing)}")
        if path.suffix == ".whl":
            foreign = sorted(n for n in names if not n.startswith(("pykernels/", "pykernels-")))
            if foreign:
                raise SystemExit(f"{path.name} would install {', '.join(foreign)}")
        print(f"{path.name}: {len(expected())} files of the package, as expected")


if __name__ == "__main__":
    main(sys.argv[1:])
