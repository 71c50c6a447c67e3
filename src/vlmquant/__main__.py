"""`python -m vlmquant`."""

from vlmquant.cli import main

main()
