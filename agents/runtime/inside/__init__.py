"""What only people who have logged in are told of the processes.

`bootstrap` alone may import it.
"""
