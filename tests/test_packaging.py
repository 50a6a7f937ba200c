"""What is installed is what is in the folders, and nothing else."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
MAPPED = {"exporters", "cli", "benchmarks"}


def folder_of(package: str) -> Path:
    parts = package.split(".")
    return ROOT.joinpath(*(parts[1:] if len(parts) > 1 and parts[1] in MAPPED else parts))


def test_the_package_list_is_that_of_the_folders() -> None:
    found = {folder for top in ("chase", *MAPPED) for folder in (ROOT / top).rglob("*") if folder.is_dir()}
    packages = {folder for folder in found if (folder / "__init__.py").is_file() and not folder.is_symlink()}
    packages |= {ROOT / top for top in ("chase", *MAPPED)}

    listed = {folder_of(package) for package in PROJECT["tool"]["setuptools"]["packages"]}

    assert listed == {folder for folder in packages if not any(parent.is_symlink() for parent in folder.parents)}


@pytest.mark.parametrize("name", sorted(MAPPED))
def test_the_links_for_type_checkers_lead_to_the_folders(name: str) -> None:
    assert (ROOT / "chase" / name).resolve() == ROOT / name


def test_the_wheel_holds_one_package_with_its_recipes(tmp_path: Path) -> None:
    options = ["--no-deps", "--no-build-isolation", "--wheel-dir", str(tmp_path)]
    subprocess.run([sys.executable, "-m", "pip", "wheel", str(ROOT), *options], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")

    names = zipfile.ZipFile(wheel).namelist()

    code = {name for name in names if ".dist-info/" not in name}
    assert {name.split("/")[0] for name in code} == {"chase"}
    assert "chase/cli/train.py" in code
    assert "chase/recipes/digits-demo.yaml" in code
    assert "chase/py.typed" in code


def test_versions_agree() -> None:
    from importlib.metadata import version

    from chase import __version__

    assert PROJECT["project"]["version"] == __version__ == version("chase-sparse")
