"""What people do with incidents, the views that they share, and the audit log."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

_ROW_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "incident_triage",
        sa.Column("incident_id", sa.Text, primary_key=True),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("state", "label", "assignee", "reason")),
        sa.Column("changed_at", sa.Double, nullable=False),
        sa.Column("changed_by", sa.Text, nullable=False),
    )
    op.create_table(
        "incident_changes",
        sa.Column("change_id", _ROW_ID, primary_key=True),
        sa.Column("action_id", sa.Text, nullable=False),
        sa.Column("at", sa.Double, nullable=False),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("incident_id", "author", "before", "after")),
        sa.Column("comment", sa.Text, nullable=False),
        sa.Column("decision_id", sa.BigInteger),
        sa.Column("undone_at", sa.Double),
        sa.Column("undone_by", sa.Text, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("incident_changes_incident", "incident_changes", ["incident_id"])
    op.create_index("incident_changes_action", "incident_changes", ["action_id"])
    op.create_table(
        "saved_views",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("address", sa.Text, nullable=False),
        sa.Column("author", sa.Text, nullable=False),
        sa.Column("saved_at", sa.Double, nullable=False),
    )
    op.create_table(
        "audit_log",
        sa.Column("audit_id", _ROW_ID, primary_key=True),
        sa.Column("at", sa.Double, nullable=False),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("author", "way", "action", "object", "detail")),
        sqlite_autoincrement=True,
    )
    op.create_index("audit_log_at", "audit_log", ["at"])


def downgrade() -> None:
    for table in ("audit_log", "saved_views", "incident_changes", "incident_triage"):
        op.drop_table(table)
