"""Group F: another person's runs and configurations run no code and read no secret."""

from __future__ import annotations

import gzip
import importlib.util
import json
import shutil
from collections.abc import Iterable
from pathlib import Path

import pytest

from glu_bench.runs.folder import Run
from tests.faults.conftest import Here, Processes, TinyTrain, find_run, newest_checkpoint, snapshot
from tests.faults.foreign import copy_run, make_pickle, seal_checkpoint

SECRET = "s3cr3t-0f-th3-3nv1r0nm3nt"


def holding(folders: Iterable[Path], text: str) -> list[Path]:
    """Files under some folders that hold a text, and paths that do."""
    paths = [path for folder in folders for path in (folder, *folder.rglob("*"))]
    files = [path for path in paths if path.is_file()]
    return [p for p in paths if text in p.name] + [p for p in files if text.encode() in p.read_bytes()]


# --- F1


def test_f1_a_pickle_as_weights(finished_run: Run, here: Here, tmp_path: Path) -> None:
    """A pickle that runs a command, in place of model.safetensors, its checksum in the manifest.

    The command that reads the run exits 3 and names the file; nothing of the pickle has run.
    """
    run = copy_run(finished_run, tmp_path / "outputs")
    checkpoint = newest_checkpoint(run)
    (checkpoint / "model.safetensors").write_bytes(make_pickle(tmp_path / "marker"))
    seal_checkpoint(checkpoint)
    ended = here("eval", str(run))
    assert ended.code == 3, ended.err
    assert "model.safetensors" in ended.err
    assert len(ended.err.splitlines()) == 2  # what is evaluated, and what is wrong
    assert not (tmp_path / "marker").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["optimizer.safetensors", "state.json", "model.pt", "manifest.json"])
def test_f1_a_pickle_as_any_file_of_a_checkpoint(
    name: str, finished_run: Run, here: Here, tmp_path: Path
) -> None:
    """The same in place of the optimiser's file, state.json, the manifest, and as model.pt alone.

    Exit 3; nothing of the pickle has run.
    """
    run = copy_run(finished_run, tmp_path / "outputs")
    checkpoint = newest_checkpoint(run)
    (checkpoint / name).write_bytes(make_pickle(tmp_path / "marker"))
    if name == "model.pt":
        (checkpoint / "model.safetensors").unlink()
    elif name != "manifest.json":
        seal_checkpoint(checkpoint)
    ended = here("eval", str(run), "--quiet")
    assert ended.code == 3, ended.err
    assert str(checkpoint) in ended.err
    assert len(ended.err.splitlines()) == 1
    assert not (tmp_path / "marker").exists()


@pytest.mark.slow
def test_f1_pickles_beside_a_run_and_in_other_folders(finished_run: Run, here: Here, tmp_path: Path) -> None:
    """A run with model.pt, .bin and .ckpt beside its files is imported; a pickle is named as the run; a
    Hugging Face folder holds pytorch_model.bin alone.

    The import refuses the run (3), a pickle is no run (2), the folder has no safetensors (3); nothing ran.
    """
    content = make_pickle(tmp_path / "marker")
    for ending in ("pt", "bin", "ckpt"):
        run = copy_run(finished_run, tmp_path / "theirs", f"with-{ending}")
        (newest_checkpoint(run) / f"model.{ending}").write_bytes(content)
        (tmp_path / f"run.{ending}").write_bytes(content)
    ended = here("runs", "import", "theirs")
    assert ended.code == 3
    assert all(f"model.{ending}: does not belong to a run" in ended.err for ending in ("pt", "bin", "ckpt"))
    assert not [path for path in (tmp_path / "outputs" / "runs").iterdir() if path.name != ".lock"]
    assert here("eval", "run.pt", "run.bin").code == 2
    folder = tmp_path / "hf"
    folder.mkdir()
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "pytorch_model.bin").write_bytes(content)
    ended = here("eval", "--hf", "hf", "--files", "run.pt")
    assert (ended.code, "Traceback" in ended.err) == (3, False)
    assert "no model.safetensors" in ended.err
    assert not (tmp_path / "marker").exists()


# --- F2

CALLS = {
    "target": "_target_: os.system\n_args_: ['touch {marker}']\n",
    "nested": "optim:\n  _target_: logging.os.system\n  _args_: ['touch {marker}']\n",
    "interpreter": "variant:\n  _target_: code.InteractiveInterpreter\n",
    "instantiator": "_instantiator: os.system\n",
    "tag": "!!python/object/apply:os.system ['touch {marker}']\n",
    "tagged value": "seed: !!python/object/apply:os.system ['touch {marker}']\n",
}


def test_f2_a_saved_configuration_that_calls(finished_run: Run, here: Here, tmp_path: Path) -> None:
    """Saved configurations with _target_, _args_, _instantiator and YAML tags that name os.system.

    Each run is refused by name (3), in a line each; nothing was called.
    """
    for name, text in CALLS.items():
        run = copy_run(finished_run, tmp_path / "outputs", name.replace(" ", "-"))
        own = (run / "config.yaml").read_text()
        attack = text.format(marker=tmp_path / "marker")
        key = attack.split(":")[0]
        kept = [part for part in own.split("\n") if not part.startswith(f"{key}:")]
        body = own if name == "tag" else "\n".join(kept)
        if name in ("nested", "interpreter"):  # the group's own keys, and one more
            body = own.replace(f"{key}:\n", attack, 1)
            attack = ""
        (run / "config.yaml").write_text(attack if name == "tag" else body + attack)
    ended = here("runs", "verify")
    assert ended.code == 3, ended.err
    assert f"{len(CALLS)} of {len(CALLS)} runs do not verify" in ended.err
    for name in CALLS:
        assert f"/runs/{name.replace(' ', '-')}/config.yaml" in ended.out
    assert not (tmp_path / "marker").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", CALLS)
def test_f2_a_folder_of_configurations_that_calls(name: str, here: Here, tmp_path: Path) -> None:
    """The same as a variant of a stranger's --config-dir.

    Exit 2, naming the file; nothing was called.
    """
    folder = tmp_path / "theirs" / "variant"
    folder.mkdir(parents=True)
    good = "name: evil\nfamily: x\nformula: x\nsource: x\ngated: false\nactivation: relu\n"
    attack = CALLS[name].format(marker=tmp_path / "marker")
    (folder / "evil.yaml").write_text(attack if name == "tag" else good + attack)
    ended = here("train", "variant=evil", "--config-dir", "theirs", "--cfg")
    assert ended.code == 2, ended.out
    assert "evil.yaml" in ended.err or "no such key" in ended.err
    assert len(ended.err.splitlines()) == 1
    assert not (tmp_path / "marker").exists()


@pytest.mark.slow
def test_f2_instructions_to_hydra_and_words_that_call(here: Here, tmp_path: Path) -> None:
    """An experiment of a stranger that sets Hydra's own callbacks; override words with _target_.

    Exit 2; nothing was called.
    """
    folder = tmp_path / "theirs" / "experiment"
    folder.mkdir(parents=True)
    call = f"_target_: os.system\n      _args_: ['touch {tmp_path}/marker']\n"
    (folder / "evil.yaml").write_text(
        f"# @package _global_\nhydra:\n  callbacks:\n    mine:\n      {call}seed: 3\n"
    )
    words = ("variant=relu", "experiment=evil", "--config-dir", "theirs", "--cfg")
    assert here("train", *words).code == 2
    for word in ("+x._target_=os.system", "optim._target_=os.system", "optim={_target_: os.system}"):
        ended = here("train", "variant=relu", word, "--cfg")
        assert (ended.code, len(ended.err.splitlines())) == (2, 1), word
    assert not (tmp_path / "marker").exists()


@pytest.mark.slow
def test_f2_the_state_of_a_checkpoint_that_calls(
    finished_run: Run, tiny_train: TinyTrain, tmp_path: Path
) -> None:
    """A checkpoint whose state.json, its checksum in order, names a _target_; the run is resumed.

    Exit 3, naming the file; nothing was called, and no file of the checkpoint has changed.
    """
    run = copy_run(finished_run, tmp_path / "outputs")
    (run / "result.json").unlink()
    checkpoint = newest_checkpoint(run)
    state = json.loads((checkpoint / "state.json").read_text())
    call = {"_target_": "os.system", "_args_": [f"touch {tmp_path}/marker"]}
    (checkpoint / "state.json").write_text(json.dumps(state | call))
    seal_checkpoint(checkpoint)
    before = snapshot(checkpoint)
    ended = tiny_train()
    assert ended.code == 3, ended.err
    assert "state.json" in ended.err
    assert snapshot(find_run(tmp_path / "outputs") / "checkpoints" / checkpoint.name) == before
    assert not (tmp_path / "marker").exists()


# --- F3


def test_f3_a_configuration_that_asks_for_a_secret(finished_run: Run, here: Here, tmp_path: Path) -> None:
    """A saved configuration, a stranger's variant and an override word with ${oc.env:…}.

    Each is refused (3, 2, 2); the secret stands in no output and in no file.
    """
    ask = "${oc.env:GLU_SECRET}"
    run = copy_run(finished_run, tmp_path / "outputs")
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(text.replace("  corpus: text\n", f"  corpus: '{ask}'\n"))
    assert ask in (run / "config.yaml").read_text()
    folder = tmp_path / "theirs" / "variant"
    folder.mkdir(parents=True)
    (folder / "asks.yaml").write_text(
        f"name: asks\nfamily: x\nformula: '{ask}'\nsource: x\ngated: false\nactivation: relu\n"
    )
    env: dict[str, str | None] = {"GLU_SECRET": SECRET}
    for words, code in (
        (("runs", "show", str(run)), 3),
        (("train", "variant=asks", "--config-dir", "theirs", "--cfg"), 2),
        (("train", "variant=relu", f"data.corpus={ask}", "--cfg"), 2),
    ):
        ended = here(*words, env=env)
        assert ended.code == code, (words, ended.err)
        assert "not allowed" in ended.err
        assert SECRET not in ended.out + ended.err
    assert holding([tmp_path], SECRET) == []


# --- F9

Secrets = dict[str, str | None]
TOKENS: Secrets = {
    "HF_TOKEN": f"hf_{SECRET}1",
    "WANDB_API_KEY": f"{SECRET}2",
    "AWS_SECRET_ACCESS_KEY": f"{SECRET}3",
    "MY_PASSWORD": f"{SECRET}4",
}


@pytest.mark.slow
def test_f9_secrets_of_the_environment_and_of_the_command_line(
    tiny_train: TinyTrain, processes: Processes, own_cache: Path, tmp_path: Path
) -> None:
    """Tokens in the environment and in options, through train with a tracker, a plugin and a profile,
    a run that fails, report, comparison and export.

    None stands in any file of the output folder, the cache, the page or the export, nor on a stream.
    """
    private = tmp_path / f"private-{SECRET}5"
    private.mkdir()
    (private / "wave.py").write_text("import torch\n\nACTIVATIONS = {'wave': torch.sin}\n")
    (private / "variant").mkdir()
    (private / "variant" / "wave.yaml").write_text(
        "name: wave\nfamily: x\nformula: sin(h)\nsource: x\ngated: false\nactivation: wave\n"
    )
    env: Secrets = {**TOKENS, "WANDB_MODE": "offline"}
    said = []
    assert tiny_train("--x", f"token={SECRET}", env=env).code == 2
    assert not (tmp_path / "outputs").exists()
    for words in (
        ("variant=wave", "--plugin", str(private / "wave.py"), "--config-dir", str(private)),
        ("variant=relu", "tracker=tensorboard"),
        ("variant=swish", "--profile"),
        ("variant=swiglu", f"tracker={'wandb' if importlib.util.find_spec('wandb') else 'none'}"),
    ):
        ended = tiny_train(*words, env=env, limit_s=120)
        assert ended.code == 0, ended.err
        said += [ended.out, ended.err]
    broken: Secrets = {**env, "GLU_BENCH_TESTING": "1", "GLU_BENCH_FAULT": "step.after_backward:raise"}
    assert tiny_train("seed=3", env=broken).code == 1
    (exported,) = [
        path for path in (tmp_path / "outputs" / "runs").iterdir() if "swiglu-pico-text-s0" in path.name
    ]
    for words in (
        ("report", "-o", "page.html"),
        ("compare",),
        ("export", str(exported), "exported"),
    ):
        ended = processes.run(*words, env=env, limit_s=120)
        assert ended.code == 0, ended.err
        said += [ended.out, ended.err]
    shutil.rmtree(private)
    assert holding([tmp_path, own_cache], SECRET) == []
    (trace,) = (tmp_path / "outputs").rglob("trace.json.gz")
    assert SECRET.encode() not in gzip.decompress(trace.read_bytes())
    assert SECRET not in "".join(said)
