"""Indexes of sums that hold all that long spans are read for, so that no row is looked up beside them."""

from __future__ import annotations

from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

_INDEXES = {
    "query_hours_client": ("query_hours", ["client", "hour"], ["domain", "queries", "severity"]),
    "query_hours_domain": ("query_hours", ["domain", "hour"], ["client", "queries", "severity"]),
    "query_domain_days_domain": (
        "query_domain_days", ["domain", "day"], ["queries", "severity", "last_seen", "failed", "others"],
    ),
    "query_pairs_domain": ("query_pairs", ["domain"], ["first_seen", "last_seen"]),
}  # fmt: skip


def upgrade() -> None:
    for name, (table, key, more) in _INDEXES.items():
        op.drop_index(name, table)
        op.create_index(name, table, key + more)


def downgrade() -> None:
    for name, (table, key, _) in _INDEXES.items():
        op.drop_index(name, table)
        op.create_index(name, table, key)
