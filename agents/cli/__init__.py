"""One file a command: arguments in, exit code out.

Its face is `parser.main`. Only `agents.__main__` imports it.
"""
