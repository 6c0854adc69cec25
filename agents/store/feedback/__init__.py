"""What people and the learning loop add to the stored queries: flow-hours, their labels, and reviews.

`learning`, `web`, `runtime` and `cli` may import it, as they may import all of `store`.
"""
