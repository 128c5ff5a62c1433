"""The `amtp` command, one module per noun: arguments in, words or JSON out, an exit code.

What belongs here: reading arguments, choosing words, exit codes (0 done, 1 refused or wrong, 2 misused, 3 unreachable).
What does not: anything a program would want to call.
"""
