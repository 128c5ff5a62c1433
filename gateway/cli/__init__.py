"""The `amtp` command, one module per noun: arguments in, text or JSON out, an exit code.

Here belong arguments, texts and exit codes (0 done, 1 refused or wrong, 2 misused, 3 unreachable), and nothing that
another program would want to call.
"""
