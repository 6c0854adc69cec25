"""What one query changes: the row of its flow, windows, names seen before, and the order of what is asked.

Of the room `detection` alone.
"""
