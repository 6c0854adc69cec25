"""The nouns, the seams, columns, files, text, errors, logs, the compiler switch.

Its public modules are `types`, `errors` and `protocols`. Every room may import it; it imports no other room.
"""
