"""As much of curl as our documents use, for machines without one: `curl -sS URL [-X METHOD] [-H HEADER] [-d DATA]`."""

import argparse
import sys
import urllib.error
import urllib.request


def main() -> int:
    parser = argparse.ArgumentParser(prog="curl", allow_abbrev=False)
    parser.add_argument("url")
    parser.add_argument("-s", action="store_true")
    parser.add_argument("-S", action="store_true")
    parser.add_argument("-X", dest="method")
    parser.add_argument("-H", dest="headers", action="append", default=[])
    parser.add_argument("-d", dest="data")
    asked = parser.parse_args()
    body = None if asked.data is None else asked.data.encode()
    request = urllib.request.Request(asked.url, body, method=asked.method)
    for header in asked.headers:
        name, _, value = header.partition(":")
        request.add_header(name, value.strip())
    try:
        with urllib.request.urlopen(request) as answer:
            sys.stdout.buffer.write(answer.read())
    except urllib.error.HTTPError as refusal:
        sys.stdout.buffer.write(refusal.read())
    return 0


if __name__ == "__main__":
    sys.exit(main())
