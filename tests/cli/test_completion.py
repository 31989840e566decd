"""What the tab key completes, as the shells themselves say."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Cli = Callable[..., tuple[int, str, str]]
ASK_BASH = """
source {script}
COMP_WORDS=({words} "{begun}")
COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
COMPREPLY=()
"$(complete -p distilbench | sed 's/.*-F \\([^ ]*\\).*/\\1/')" distilbench "{begun}" ""
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


def script(cli: Cli, shell: str, folder: Path) -> Path:
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell} here")
    code, out, err = cli("completion", shell)
    assert (code, err) == (0, "")
    path = folder / f"completion.{shell}"
    path.write_text(out, encoding="utf-8")
    return path


CASES = [
    ("distilbench", "ru", "run"),
    ("distilbench run", "dem", "demo"),
    ("distilbench run", "own", "own.yaml"),
    ("distilbench run", "--dry", "--dry-run"),
    ("distilbench run --engine", "r", "ray"),
    ("distilbench conform", "minil", "minilm"),
]


@pytest.mark.parametrize(("words", "begun", "expected"), CASES)
def test_bash_completes(cli: Cli, tmp_path: Path, words: str, begun: str, expected: str) -> None:
    (tmp_path / "own.yaml").touch()
    program = ASK_BASH.format(script=script(cli, "bash", tmp_path), words=words, begun=begun)
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.split() == [expected], done.stderr


@pytest.mark.parametrize(("words", "begun", "expected"), CASES)
def test_fish_completes(cli: Cli, tmp_path: Path, words: str, begun: str, expected: str) -> None:
    (tmp_path / "own.yaml").touch()
    ask = f'source {script(cli, "fish", tmp_path)}; complete -C "{words} {begun}"'
    done = subprocess.run(["fish", "-c", ask], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert expected in [line.split("\t")[0] for line in done.stdout.splitlines()], done.stdout


def test_zsh_reads_the_script(cli: Cli, tmp_path: Path) -> None:
    path = script(cli, "zsh", tmp_path)
    source = (
        f'autoload -U compinit && compinit -u -d {tmp_path / "dump"}; eval "$(cat {path})"; print $_comps[distilbench]'
    )
    done = subprocess.run(["zsh", "-f", "-c", source], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.strip() == "_shtab_distilbench", done.stderr
    assert "compadd -- " in path.read_text(encoding="utf-8")


def test_a_shell_that_is_not_known_is_a_sentence(cli: Cli) -> None:
    code, out, err = cli("completion", "tcsh")
    assert (code, out) == (2, "") and "choose from" in err
