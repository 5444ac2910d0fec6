"""TAB: what is offered, and what each shell makes of it."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from glu_bench.cli.completion import list_offers
from glu_bench.config import list_group, list_groups
from glu_bench.launch import EXTRAS
from glu_bench.runs.folder import Run
from glu_bench.schema import list_keys

REPO = Path(__file__).resolve().parents[2]


def words(word: str, config_dir: Path | None = None, several: bool = False) -> list[str]:
    return [offer for offer, _ in list_offers(word, config_dir, several)]


def test_a_group_offers_its_files() -> None:
    assert words("variant=") == [f"variant={name}" for name in list_group("variant")]
    assert words("variant=swis") == ["variant=swish", "variant=swish_beta"]


def test_a_prefix_offers_the_group_and_its_settings() -> None:
    assert words("tra") == ["tracker=", "tracker.", "train=", "train."]


def test_choices_follow_their_key() -> None:
    assert words("train.precision=") == [f"train.precision={each}" for each in ("auto", "bf16", "fp32")]
    assert words("model.tied_embeddings=t") == ["model.tied_embeddings=true"]


def test_numbers_of_the_presets_follow_their_key() -> None:
    assert "model.d_model=192" in words("model.d_model=")
    assert words("seed=") == ["seed=0"]


def test_a_bare_key_is_never_a_unique_match() -> None:
    """A shell adds a space after a unique match; after `=` that would be wrong."""
    for key in list_keys():
        offered = words(key[:-1]) if "." in key else []
        assert len(offered) != 1 or not offered[0].endswith("=") or not words(offered[0])


def test_a_list_of_a_sweep_goes_on_without_what_it_has() -> None:
    assert words("variant=relu,bil", several=True) == ["variant=relu,bilinear"]
    assert "variant=gelu,gelu" not in words("variant=gelu,", several=True)
    assert words("variant=relu,bil") == []


def test_launchers_are_offered_to_a_sweep_alone_and_one_at_a_time() -> None:
    assert words("hydra/launcher=", several=True) == [f"hydra/launcher={name}" for name in EXTRAS]
    assert words("hydra/launcher=r", several=True) == ["hydra/launcher=ray"]
    assert words("hyd", several=True) == ["hydra/launcher=", *words("hydra/launcher=", several=True)]
    assert "hydra/launcher=" in words("", several=True)
    assert words("hydra/launcher=ray,", several=True) == words("hydra/launcher=") == words("hy") == []
    assert "hydra/launcher=" not in words("")


def test_own_groups_are_offered(tmp_path: Path) -> None:
    (tmp_path / "variant").mkdir()
    (tmp_path / "variant" / "swmine.yaml").write_text("name: swmine\n")
    assert "variant=swmine" in words("variant=sw", tmp_path)


def test_nothing_read_only_or_unknown_is_offered() -> None:
    assert words("num") == words("numerics_version=") == words("nosuch=") == []


def test_every_word_that_is_offered_is_known() -> None:
    known = {*(f"{group}=" for group in list_groups()), *(f"{group}." for group in list_groups())}
    assert set(words("")) <= known | {f"{key}=" for key in list_keys()}


@pytest.fixture
def command(tmp_path: Path) -> Path:
    """A folder with the command as a shell finds it."""
    folder = tmp_path / "bin"
    folder.mkdir()
    path = folder / "glu-bench"
    path.write_text(
        f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(REPO)!r})\nsys.argv[0] = 'glu-bench'\n"
        "from glu_bench.cli.main import main\nmain()\n"
    )
    path.chmod(0o755)
    return folder


@pytest.fixture
def environment(command: Path, tmp_path: Path) -> dict[str, str]:
    """A shell's environment with that command and nothing of the person's own."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("GLU", "_TYPER"))}
    return env | {
        "PATH": f"{command}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "TERM": "dumb",
        "LC_ALL": "C.UTF-8",
    }


def ask(env: dict[str, str], shell: str, line: str) -> str:
    """What typer's completion protocol answers for a line."""
    extra = {
        "_GLU_BENCH_COMPLETE": f"complete_{shell}",
        "_TYPER_COMPLETE_ARGS": line,
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    done = subprocess.run(
        ["glu-bench"], env=env | extra, capture_output=True, text=True, timeout=20, check=True
    )
    assert done.stderr == ""
    return done.stdout


@pytest.mark.parametrize("verb", ["train", "sweep"])
def test_zsh_and_fish_get_whole_words(environment: dict[str, str], verb: str) -> None:
    assert '"variant=swiglu":' in ask(environment, "zsh", f"glu-bench {verb} seed=1 variant=sw")
    assert ask(environment, "fish", f"glu-bench {verb} variant=sw").split("\t")[0] == "variant=swiglu"


def test_own_groups_on_the_line_count(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "mine" / "variant").mkdir(parents=True)
    (tmp_path / "mine" / "variant" / "swmine.yaml").write_text("name: swmine\n")
    line = f"glu-bench train --config-dir {tmp_path}/mine variant=swm"
    assert ask(environment, "fish", line).split("\t")[0] == "variant=swmine"


def test_run_ids_are_offered(environment: dict[str, str], finished_run: Run) -> None:
    outputs = str(finished_run.path.parent.parent)
    for verb in ("eval", "sample", "runs show", "runs diff", "runs verify", "compare"):
        line = f"glu-bench {verb} --output-dir {outputs} sw"
        assert ask(environment, "fish", line).strip() == finished_run.path.name, verb


def test_tab_is_quick_and_imports_no_torch(environment: dict[str, str], command: Path) -> None:
    path = command / "glu-bench"
    path.write_text(
        path.read_text() + "".join(f"\nassert {name!r} not in sys.modules\n" for name in ("torch", "hydra"))
    )
    began = time.monotonic()
    ask(environment, "fish", "glu-bench train variant=")
    assert time.monotonic() - began < 2  # 0.2 s on an idle machine; this one may be busy


Type = Callable[[str], str]


@pytest.fixture
def bash(environment: dict[str, str], tmp_path: Path) -> Type:
    """Types keys into a real interactive bash and returns the line that then stands there."""
    shell = shutil.which("bash")
    if shell is None:
        pytest.skip("no bash here")
    script = subprocess.run(
        ["glu-bench"],
        env=environment | {"_GLU_BENCH_COMPLETE": "source_bash"},
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    ).stdout
    (tmp_path / "rc").write_text(
        script + "\nPS1='$ '\n" + r"""bind -x '"\C-xp": printf "<%s>" "$READLINE_LINE"'""" + "\n"
    )

    def type_keys(keys: str) -> str:
        terminal, inner = pty.openpty()
        process = subprocess.Popen(
            [shell, "--noprofile", "--rcfile", "rc", "-i"],
            env=environment,
            cwd=tmp_path,
            stdin=inner,
            stdout=inner,
            stderr=inner,
            start_new_session=True,
        )
        os.close(inner)
        try:
            read_until(terminal, r"\$ $")
            os.write(terminal, keys.encode() + b"\x18p")
            return read_until(terminal, r"<(.*)>")
        finally:
            process.kill()
            process.wait()
            os.close(terminal)

    return type_keys


def read_until(terminal: int, pattern: str) -> str:
    """What the terminal showed when the pattern first appeared: its last group, or all."""
    shown = ""
    ends = time.monotonic() + 20
    while time.monotonic() < ends:
        if select.select([terminal], [], [], 0.1)[0]:
            shown += os.read(terminal, 4096).decode(errors="replace")
            if found := re.search(pattern, shown):
                return found[found.lastindex or 0]
    raise AssertionError(f"{pattern} never came: {shown!r}")


@pytest.mark.parametrize(
    ("typed", "line"),
    [
        ("glu-bench train variant=bil\t", "glu-bench train variant=bilinear "),
        ("glu-bench train variant=\t", "glu-bench train variant="),
        ("glu-bench train vari\t", "glu-bench train variant"),  # variant= or variant.
        ("glu-bench train model.d_m\t", "glu-bench train model.d_model="),  # no space after it
        ("glu-bench train seed=1 train.precision=b\t", "glu-bench train seed=1 train.precision=bf16 "),
        ("glu-bench sweep variant=relu,bil\t", "glu-bench sweep variant=relu,bilinear "),
        ("glu-bench sweep seed=1 hydra/launcher=r\t", "glu-bench sweep seed=1 hydra/launcher=ray "),
        (
            "glu-bench train --config-dir=mine variant=swm\t",
            "glu-bench train --config-dir=mine variant=swmine ",
        ),
        ("glu-bench runs ver\t", "glu-bench runs verify "),
    ],
)
def test_bash_completes(bash: Type, tmp_path: Path, typed: str, line: str) -> None:
    (tmp_path / "mine" / "variant").mkdir(parents=True)
    (tmp_path / "mine" / "variant" / "swmine.yaml").write_text("name: swmine\n")
    assert bash(typed) == line


@pytest.mark.skipif(shutil.which("fish") is None, reason="no fish here")
def test_fish_completes(environment: dict[str, str], tmp_path: Path) -> None:
    script = subprocess.run(
        ["glu-bench"],
        env=environment | {"_GLU_BENCH_COMPLETE": "source_fish"},
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    ).stdout
    (tmp_path / "glu-bench.fish").write_text(script)
    done = subprocess.run(
        ["fish", "-c", 'source glu-bench.fish; complete -C "glu-bench train variant=swig"'],
        env=environment | {"XDG_CONFIG_HOME": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert done.stdout.startswith("variant=swiglu")
