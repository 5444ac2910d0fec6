"""The glu-bench command: verbs, and the one place where errors become exit codes."""

from __future__ import annotations

import os
import sys

import typer

from glu_bench.cli.bench import app as bench_app
from glu_bench.cli.claims import claims
from glu_bench.cli.compare import compare
from glu_bench.cli.data import app as data_app
from glu_bench.cli.doctor import doctor
from glu_bench.cli.evaluate import evaluate
from glu_bench.cli.export import export
from glu_bench.cli.inspect import inspect
from glu_bench.cli.report import report
from glu_bench.cli.reproduce import reproduce
from glu_bench.cli.runs import app as runs_app
from glu_bench.cli.sample import sample
from glu_bench.cli.scaling import scaling
from glu_bench.cli.status import status
from glu_bench.cli.sweep import sweep
from glu_bench.cli.train import train
from glu_bench.cli.variants import variants
from glu_bench.errors import explain_end, show_controls

EXIT_CODES = (
    "Exit codes: 0 done; 1 a bug of glu-bench, with its traceback; 2 usage or configuration; 3 text or a run "
    "folder; 4 diverged; 5 runs of a sweep did not finish; 6 out of memory or disk; 7 a device is not there; "
    "75 another process holds the run; 129, 130, 143 stopped by a signal, the same command goes on."
)
app = typer.Typer(
    name="glu-bench",
    help="""Which feed-forward activation should a transformer use, how sure are we, and what does it cost?

Example: glu-bench sweep variant=gelu,swiglu seed=0,1,2 train=quick --name first

Example: glu-bench compare first
""",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(train)
app.command()(sweep)
app.command()(status)
app.command(name="eval")(evaluate)
app.command()(compare)
app.command()(inspect)
app.command()(claims)
app.command()(scaling)
app.command()(report)
app.command()(reproduce)
app.command()(export)
app.command()(sample)
app.command()(variants)
app.command()(doctor)
app.add_typer(runs_app, name="runs")
app.add_typer(data_app, name="data")
app.add_typer(bench_app, name="bench")


def main() -> None:
    """Run the command line; every failure a person can mend ends in one line and its exit code."""
    # libgomp's threads spin at every barrier; on a machine that does other work as well, ten
    # thousand turns instead of millions keep a step from costing ten times its share
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed by the caller: nobody listens, and no file may take its place
            setattr(sys, name, open(os.devnull, mode))  # noqa: PTH123, SIM115  (for the rest of the process)
    try:
        try:
            app()
        finally:
            sys.stdout.flush()  # here, where a reader that left is no error
    except SystemExit as leaving:
        if not isinstance(leaving.__context__, BrokenPipeError):
            raise
        _leave(leaving.__context__)  # for which typer has an exit code of its own
    except BaseException as error:
        _leave(error)


def _leave(error: BaseException) -> None:
    from glu_bench.show.console import drop_stream

    exit_code, message = explain_end(error)
    if message is None and exit_code:  # a bug of ours, whose traceback says more
        raise error
    if message is None:
        drop_stream(sys.stdout)
    else:
        lines = [show_controls(line) for line in f"glu-bench: {message}".split("\n")]
        encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
        try:
            print("\n".join(lines).encode(encoding, errors="replace").decode(encoding), file=sys.stderr)
        except OSError:  # nobody reads it
            drop_stream(sys.stderr)
    sys.exit(exit_code)
