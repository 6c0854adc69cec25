"""The long-running processes: supervisor, listener, detector, console, scheduler; where settings become collaborators.

Its face is `supervisor.supervise`, `services.serve` and `bootstrap`. `cli` alone may import it.
"""
