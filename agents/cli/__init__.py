"""One file a command: arguments in, exit code out. Only `agents.__main__` imports it."""
