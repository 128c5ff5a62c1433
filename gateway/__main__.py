"""The `amtp` command, and `python -m gateway`: loads the rest, and hands over to it."""

import signal


def main() -> None:
    # While the rest is loaded there is nothing to end in good order, so Ctrl-C just ends it.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from gateway.cli.main import main as command

    signal.signal(signal.SIGINT, signal.default_int_handler)
    command()


if __name__ == "__main__":
    main()
