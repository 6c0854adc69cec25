"""The learning loop: flow-hours, labels and reviews.

Nothing here changes a limit (docs/bound.md).
"""
