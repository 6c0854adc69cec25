"""The nouns, the seams, columns, files, text, errors, logs, the compiler switch.

Its face is three modules: `types`, `errors`, `protocols`. Every room may import it; it imports none.
"""
