"""The long-running processes: supervisor, listener, detector, console, scheduler; where settings become collaborators.

`cli` alone may import it.
"""
