"""python -m glu_bench: the same as the glu-bench command."""

from glu_bench.cli.main import main

main()
