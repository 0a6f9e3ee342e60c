"""The tutorial's code is this plugin's, and its commands run."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parents[1]
PAGE = HERE.parents[1] / "docs" / "tutorial" / "plugin.md"

if not PAGE.exists():
    pytest.skip("the tutorial is not here", allow_module_level=True)

TEXT = PAGE.read_text(encoding="utf-8")
BLOCKS = re.findall(r"^`([\w./-]+)`:\n\n```(?:python|toml)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
COMMANDS = [line[2:] for block in re.findall(r"```console\n(.*?)```", TEXT, re.DOTALL) for line in block.splitlines()]


def test_every_block_of_code_names_its_file():
    assert len(BLOCKS) == TEXT.count("```python") + TEXT.count("```toml") > 0


@pytest.mark.parametrize(("name", "code"), BLOCKS, ids=[name for name, _ in BLOCKS])
def test_the_code_is_this_plugins(name, code):
    assert code.strip() in (HERE / name).read_text(encoding="utf-8")


def test_the_commands_run_in_order(tmp_path):
    ours = [command for command in COMMANDS if command.split()[0] in ("qm", "python")]
    assert len(ours) >= 4
    for command in ours:
        program, *arguments = shlex.split(command)
        prefix = [sys.executable] if program == "python" else [sys.executable, "-m", program]
        done = subprocess.run([*prefix, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
