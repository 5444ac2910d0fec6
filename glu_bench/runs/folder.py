"""A run's folder: its id, its files, its status, and what can be loaded from it.

The id is `<variant>-<model>-<data>-s<seed>-<hash10>`; the hash covers everything that
determines the result, so the same configuration always leads to the same folder.
"""

from __future__ import annotations

import shutil
import stat
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glu_bench import config_file, schema
from glu_bench.errors import ConfigError, DataError
from glu_bench.files import (
    dump_json,
    is_locked,
    make_folder,
    read_json,
    sha256_bytes,
    sha256_file,
    write_bytes,
    write_json,
    write_text,
)
from glu_bench.runs.fields import ENVIRONMENT, FAILURE, RESULT, check_fields
from glu_bench.runs.record import read_record, read_rows

if TYPE_CHECKING:
    from glu_bench.data.prepared import TokenSet
    from glu_bench.data.tokenizers import Tokenizer
    from glu_bench.lm.decoder import Decoder

WRITTEN = (
    *("config.yaml", "environment.json", "tokenizer.json", "metrics.jsonl", "blocks.safetensors"),
    *("result.json", "failure.json", "trace.json.gz", ".lock"),
)
STATUSES = ("planned", "running", "complete", "diverged", "interrupted", "failed")


def list_identity_facts(config: schema.Config, tokens: TokenSet) -> dict[str, Any]:
    """What `make_identity` takes besides the configuration, as environment.json keeps it."""
    from glu_bench.ffn.plugins import find_plugins  # torch is not waited for where runs are only read

    return {
        "data_fingerprint": tokens.data_fingerprint,
        "tokenizer_fingerprint": tokens.tokenizer.fingerprint,
        "plugins": find_plugins(config.variant),
    }


def make_identity(config: schema.Config, facts: Mapping[str, Any]) -> dict[str, Any]:
    """All that determines a run's result, by dotted key.

    `facts` are those of `list_identity_facts`, from environment.json too.
    """
    plugins = [str(plugin["sha256"]) for plugin in facts.get("plugins", [])]
    return schema.select_identity(config) | {
        "data_fingerprint": facts["data_fingerprint"],
        "tokenizer_fingerprint": facts["tokenizer_fingerprint"],
        "variant.plugins": plugins or None,
    }


def make_run_id(config: schema.Config, facts: Mapping[str, Any]) -> str:
    """The id of the run that this configuration describes: ten hex digits stand for the identity."""
    return _name_run(config, make_identity(config, facts))


def _name_run(config: schema.Config, identity: dict[str, Any]) -> str:
    digest = sha256_bytes(dump_json(schema.drop_absent(identity)).encode())[:10]
    return f"{config.variant.name}-{config.model.preset}-{config.data.corpus}-s{config.seed}-{digest}"


@dataclass(frozen=True)
class Run:
    """A run folder on disk."""

    path: Path

    @property
    def run_id(self) -> str:
        """The id the run was given: the folder's name, unless a person renamed the folder."""
        return str(self.environment().get("run_id", self.path.name))

    @property
    def output_dir(self) -> Path:
        """The output folder that it lies in, links followed."""
        return self.path.resolve().parent.parent

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints."""
        return self.path / "checkpoints"

    @property
    def metrics_path(self) -> Path:
        """The file of logged rows."""
        return self.path / "metrics.jsonl"

    def find_file(self, name: str) -> Path | None:
        """One of its files; None if it is not there.

        Raises: DataError for a link, the folder itself included, or what is no regular file: it
        would lead out of the folder, or nowhere.
        """
        path = self.path / name
        if self.path.is_symlink():
            raise DataError(f"{self.path}: a link, not a run folder")
        try:
            is_file = stat.S_ISREG(path.lstat().st_mode)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError) as error:
            raise DataError(f"{self.path}: not readable ({error})") from None
        if not is_file:
            raise DataError(f"{path}: a link, or not a regular file")
        return path

    def config(self) -> schema.Config:
        """The configuration the run was made with.

        Raises: DataError if config.yaml is missing, broken, or no longer hashes to the run's id.
        """
        return self._read()[0]

    def identity(self) -> dict[str, Any]:
        """All that determines the run's result, by dotted key.

        Raises: DataError as `config` does.
        """
        return self._read()[1]

    def identity_and_environment(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """As `identity` and `environment`, each file read once.

        Raises: DataError as `config` does.
        """
        return self._read()[1:]

    def _read(self) -> tuple[schema.Config, dict[str, Any], dict[str, Any]]:
        path = self.find_file("config.yaml")
        if path is None:
            raise DataError(f"{self.path}: not a run folder, there is no config.yaml")
        config = config_file.read_config(path)
        facts = self.environment()
        begun = (self.path / "environment.json").exists()
        if begun and not isinstance(facts.get("run_id"), str):  # nothing would be held against it
            raise DataError(f"{self.path}/environment.json: gives no run_id")
        if not begun:
            facts = {"data_fingerprint": "", "tokenizer_fingerprint": "", **facts}
        try:
            identity = make_identity(config, facts)
            expected = _name_run(config, identity)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise DataError(f"{self.path}/environment.json: not complete ({error})") from None
        if begun and expected != facts["run_id"]:
            raise DataError(f"{path}: was edited, it describes {expected}, not {facts['run_id']}")
        return config, identity, facts

    def environment(self) -> dict[str, Any]:
        """What environment.json says; empty if the run has not begun.

        Raises: DataError if it is broken, or says something else than a run does.
        """
        path = self.find_file("environment.json")
        if path is None:
            return {}
        facts = read_json(path)
        check_fields(path, facts, ENVIRONMENT)
        return facts

    def result(self, needed: Collection[str] = ()) -> dict[str, Any]:
        """The final record, the `needed` fields among its own.

        Raises: DataError if the run is not complete, or the record was edited or is no run's.
        """
        path = self.find_file("result.json")
        if path is None:
            raise DataError(
                f"{self.run_id}: not complete ({self.status()}); run the same train command to go on"
            )
        record = read_record(path)
        check_fields(path, record, RESULT, needed)
        return record

    def failure(self) -> dict[str, Any] | None:
        """How the run ended badly (`status`, `reason`), if it said so; a broken note is a failure too."""
        path = self.path / "failure.json"
        try:
            if self.find_file(path.name) is None:
                return None
            said = read_json(path)
            check_fields(path, said, FAILURE, ("status", "reason"))
        except DataError as error:
            return {"status": "failed", "reason": str(error)}
        return said

    def rows(self) -> list[dict[str, Any]]:
        """Rows of metrics.jsonl.

        Raises: DataError if it is broken.
        """
        path = self.find_file(self.metrics_path.name)
        return [] if path is None else read_rows(path)

    def outcome(self) -> str | None:
        """How the run ended (complete, diverged, failed), or None if it did not."""
        try:
            path = self.find_file("result.json")
            if path is not None:
                read_record(path)
                return "complete"
        except DataError:
            pass  # then it is not complete
        failure = self.failure()
        return str(failure["status"]) if failure else None

    def status(self) -> str:
        """One of STATUSES, from what is on disk and who holds the lock; never stored."""
        outcome = self.outcome()
        if outcome == "complete":
            return outcome
        if is_locked(self.path):
            return "running"
        if not (self.path / "environment.json").exists():
            return "planned"
        return outcome or "interrupted"

    def load_tokenizer(self) -> Tokenizer:
        """The tokenizer the run was trained with.

        Raises: DataError if tokenizer.json is missing or is another one.
        """
        from glu_bench.data.prepared import load_prepared_tokenizer

        self.find_file("tokenizer.json")  # refuses a link
        tokenizer = load_prepared_tokenizer(self.path, self.config().tokenizer)
        self.check_tokenizer(tokenizer, f"{self.path}/tokenizer.json")
        return tokenizer

    def check_tokenizer(self, tokenizer: Tokenizer, where: str) -> None:
        """Refuse a tokenizer that is not the one the run was trained with.

        Raises: DataError with both sizes and fingerprints.
        """
        facts = self.environment()
        n_ids = facts.get("vocab_size", tokenizer.vocab_size)
        recorded = facts.get("tokenizer_fingerprint")
        if (tokenizer.vocab_size, tokenizer.fingerprint) != (n_ids, recorded):
            raise DataError(
                f"{where}: {tokenizer.vocab_size} ids, fingerprint {tokenizer.fingerprint[:12]}; "
                f"the run was trained with {n_ids} ids, {str(recorded)[:12]}"
            )

    def list_steps(self) -> list[int]:
        """The steps of its checkpoints, lowest first.

        Raises: DataError if there is none.
        """
        from glu_bench.runs.checkpoint import list_checkpoints

        found = list_checkpoints(self.checkpoints)
        if not found:
            raise DataError(f"{self.run_id}: has no checkpoint")
        return [int(path.name.removeprefix("step-")) for path in found]

    def load_model(self, step: int | None = None) -> Decoder:
        """The model of the last checkpoint, or of that step, on the CPU, in evaluation mode.

        Raises: DataError if there is no such checkpoint, it does not verify, or its tensors do not fit
        the configuration; ConfigError if it needs a plugin that is not loaded.
        """
        from glu_bench.ffn.plugins import check_plugins
        from glu_bench.lm.decoder import make_decoder, make_meta_decoder
        from glu_bench.runs.checkpoint import load_checkpoint

        config = self.config()  # first of all: an edited record no longer hashes to the id
        check_plugins(self.environment().get("plugins", []), config.variant, self.path.name)
        steps = self.list_steps()
        if step is not None and step not in steps:
            raise DataError(
                f"{self.run_id}: has no checkpoint of step {step}; there are {', '.join(map(str, steps))}"
            )
        path = self.checkpoints / f"step-{steps[-1] if step is None else step:08d}"
        checkpoint = load_checkpoint(path, self.run_id)
        vocab_size = self.load_tokenizer().vocab_size
        recorded = self.environment().get("vocab_size")
        if recorded != vocab_size:
            raise DataError(
                f"{self.path}/environment.json: vocab_size is {recorded}, its tokenizer has {vocab_size} ids"
            )
        # memory is taken for what the file holds, not for what a record says of it
        if config.model.n_layers > len(checkpoint.model):
            raise DataError(
                f"{checkpoint.path}: {len(checkpoint.model)} tensors, "
                f"the configuration has {config.model.n_layers} blocks"
            )
        check_weights(make_meta_decoder(config, vocab_size), checkpoint.model, str(checkpoint.path))
        model = make_decoder(config, vocab_size, config.train.fast)
        load_weights(model, checkpoint.model, str(checkpoint.path))
        return model.eval()


def check_weights(model: Decoder, tensors: dict[str, Any], where: str) -> None:
    """See that every name, shape and dtype of a model and of whole tensors agree.

    Raises: DataError naming the first difference.
    """
    own = dict(model.named_parameters())
    for name in sorted(set(own) ^ set(tensors)):
        side = "missing from" if name in own else "not in the model but in"
        raise DataError(f"{where}: {name} is {side} the checkpoint")
    for name, parameter in own.items():
        tensor = tensors[name]
        if tensor.shape != parameter.shape or tensor.dtype != parameter.dtype:
            raise DataError(
                f"{where}: {name} is {tuple(tensor.shape)} {tensor.dtype} in the checkpoint, "
                f"{tuple(parameter.shape)} {parameter.dtype} in the model"
            )


def load_weights(model: Decoder, tensors: dict[str, Any], where: str) -> None:
    """Copy whole tensors into a model, spread or not.

    Raises: DataError as `check_weights`.
    """
    import torch

    from glu_bench.ranks import spread_like

    check_weights(model, tensors, where)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(spread_like(tensors[name], parameter))


def open_run(output_dir: Path, config: schema.Config, environment: dict[str, Any]) -> Run:
    """Make or enter the folder of a run; `environment` carries run_id and the fingerprints.

    The caller holds no lock yet. A folder that is there must describe the same configuration.
    Raises: DataError naming the first key that differs; ConfigError if nothing can be written.
    """
    run = Run(output_dir / "runs" / environment["run_id"])
    for name in WRITTEN:  # a link there would be written through
        run.find_file(name)
    make_folder(run.path)
    path = run.path / "config.yaml"
    if path.exists() and (run.path / "environment.json").exists():
        saved, wanted = (schema.select_identity(c) for c in (config_file.read_config(path), config))
        for dotted in dict.fromkeys([*wanted, *saved]):
            there, value = saved.get(dotted), wanted.get(dotted)
            if there != value:
                raise DataError(
                    f"{path}: was edited, {dotted} is {there!r} there and {value!r} in this command; "
                    "nothing was changed"
                )
    else:
        write_text(path, config_file.render_config(config))
        write_json(run.path / "environment.json", environment)
    return run


def keep_tokenizer(run: Run, source: Path) -> None:
    """Copy the tokenizer into the run folder, so that the run can be read without the cache.

    Raises: DataError if another one lies there.
    """
    path = run.path / "tokenizer.json"
    if not path.exists():
        write_bytes(path, source.read_bytes())
    elif sha256_file(path) != sha256_file(source):
        raise DataError(f"{path}: is not the tokenizer the run was made with, which is {source}")


def list_runs(output_dir: Path) -> list[Run]:
    """Run folders under an output folder, by name."""
    runs = output_dir / "runs"
    if not runs.is_dir():
        return []
    return [
        Run(path)
        for path in sorted(runs.iterdir())
        if (path / "config.yaml").is_file() and not path.name.startswith(".")  # .…tmp: half copied or deleted
    ]


def find_run(text: str, output_dir: Path) -> Run:
    """The run that a folder, an id or a unique prefix of an id names.

    Raises: ConfigError if none or several do.
    """
    try:
        if (Path(text) / "config.yaml").is_file():
            return Run(Path(text))
    except (OSError, ValueError):  # too long for a path, or a NUL in it
        raise ConfigError(f"no run '{text[:40]}…': not a name or a path") from None
    known = list_runs(output_dir)
    found = [run for run in known if run.path.name == text] or [
        run for run in known if run.path.name.startswith(text)
    ]
    if len(found) == 1:
        return found[0]
    if not found:
        some = ", ".join(run.path.name for run in known[:3]) + (" …" if len(known) > 3 else "")
        raise ConfigError(
            f"no run '{text}' under {output_dir}/runs" + (f"; there are {some}" if some else "")
        )
    some = ", ".join(run.path.name for run in found[:5]) + (" …" if len(found) > 5 else "")
    raise ConfigError(f"'{text}' names {len(found)} runs: {some}; write more of the id, or name the folder")


def load_run(path: str | Path) -> Run:
    """A run folder by path.

    Raises: DataError if it is not one.
    """
    if not (Path(path) / "config.yaml").is_file():
        raise DataError(f"{path}: not a run folder, there is no config.yaml")
    return Run(Path(path))


def restart_run(run: Run) -> None:
    """Delete what a run has written, so that it begins anew; the caller holds its lock."""
    for name in ("result.json", "failure.json", "metrics.jsonl", "blocks.safetensors", "trace.json.gz"):
        (run.path / name).unlink(missing_ok=True)
    shutil.rmtree(run.checkpoints, ignore_errors=True)
