"""glu-bench doctor: the machine."""

from __future__ import annotations

import dataclasses

from glu_bench.cli.options import AsJson, OutputDir, Quiet
from glu_bench.files import OUTPUTS


def doctor(
    *,
    output_dir: OutputDir = OUTPUTS,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Look at the machine: what it has, what it lacks, what to do.

    Example: glu-bench doctor
    """
    from glu_bench.errors import DeviceError
    from glu_bench.interop.machine import inspect_machine
    from glu_bench.show.console import make_stdout, print_json
    from glu_bench.show.machine import render_findings

    found = inspect_machine(output_dir)
    fatal = [finding.name for finding in found if finding.fatal]
    if as_json:
        rows = [dataclasses.asdict(finding) for finding in found]
        print_json({"can_train": not fatal, "findings": rows})
    else:
        shown = [finding for finding in found if finding.status != "ok"] if quiet else found
        stdout = make_stdout()
        for line in render_findings(shown):
            stdout.print(line, soft_wrap=True)
    if fatal:
        raise DeviceError(f"nothing can be trained here: {', '.join(fatal)}")
