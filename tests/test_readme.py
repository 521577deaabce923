"""The README's Python runs as it stands, and the commands it names exist."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
# The README of nn tells one example in pieces; test_nn_example.py runs it.
FOLDERS = sorted(path for path in (ROOT / "rsa_kernels").glob("*/README.md") if path.parent.name != "nn")
KERNELS = [path.read_text(encoding="utf-8") for path in FOLDERS]
BLOCKS = re.findall(r"```python\n(.*?)```", "".join([README, *KERNELS]), flags=re.DOTALL)


def test_readme_has_python():
    assert len(BLOCKS) >= 3


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.strip().splitlines()[0][:40])
def test_readme_python_runs(block, tmp_path):
    done = subprocess.run([sys.executable, "-c", block], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def test_readme_commands_are_known():
    """Every `silica-md` line of the README parses: a renamed flag must not survive there."""
    from silica_md.cli import _parser

    lines = re.findall(r"^silica-md (.+?)(?:\s+#.*)?$", README, flags=re.MULTILINE)
    assert lines
    for line in lines:
        options, unknown = _parser().parse_known_args(line.split())
        assert not unknown, f"`silica-md {line}`: {unknown}"
        assert callable(options.command)


def test_readme_has_no_blanks_left():
    assert "@@" not in README
    assert "TODO" not in README
