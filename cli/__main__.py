"""python -m chase.cli: the command line, for launchers such as torchrun."""

from chase.cli import main

main()
