"""Several detectors on one host: what they share, and the process in which all clients are counted together.

Of the room `runtime` alone.
"""
