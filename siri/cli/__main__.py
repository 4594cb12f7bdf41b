"""`python -m siri.cli`: the command line without the script that installation makes."""

from siri.cli import main

main()
