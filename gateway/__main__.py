"""`python -m gateway` is `amtp`."""

from gateway.cli.main import main

main()
