"""Several detectors, one network: what each says of its clients, what is counted of all together, what each then knows.

Of the room `detection` and of `runtime`, which puts it between processes.
"""
