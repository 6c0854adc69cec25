"""One file a command: arguments in, exit code out. Nothing imports it but `agents.__main__`."""
