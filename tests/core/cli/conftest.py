import os
import subprocess
import sys

import pytest


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder that is on the path of this process and of its children, as a site-packages folder is."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
    for name in [n for n in os.environ if n.startswith("QM_")]:
        monkeypatch.delenv(name)
    return folder


@pytest.fixture
def install(site):
    """Installs a distribution for the test alone: its metadata, its plugins by name, its files by path."""

    def install(name, version="1.0", *, plugins=None, requires=(), files=None):
        info = site / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
        lines += [f"Requires-Dist: {requirement}" for requirement in requires]
        (info / "METADATA").write_text("\n".join(lines) + "\n")
        points = [f"{plugin} = {module}" for plugin, module in (plugins or {}).items()]
        (info / "entry_points.txt").write_text("\n".join(["[qm.v1]", *points]) + "\n")
        for path, text in (files or {}).items():
            (site / path).parent.mkdir(exist_ok=True)
            (site / path).write_text(text)
        (info / "RECORD").write_text("".join(f"{path},,\n" for path in files or {}))

    return install


@pytest.fixture
def qm(site):
    """Runs the command line in a process of its own."""

    def qm(*args, **env):
        return subprocess.run(
            [sys.executable, "-m", "qm", *map(str, args)],
            capture_output=True,
            text=True,
            env={**os.environ, **env},
            check=False,
            cwd=site,
        )

    return qm
