"""The review queue, and what people decided."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

_ROW_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "review_items",
        sa.Column("domain", sa.Text, primary_key=True),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("queued_at", sa.Double, nullable=False),
        sa.Column("informativeness", sa.REAL, nullable=False),
        sa.Column("why", sa.Text, nullable=False),
        sa.Column("clients", sa.Integer, nullable=False),
        sa.Column("names", sa.Text, nullable=False),
        sa.Column("taken_by", sa.Text, nullable=False, server_default=""),
    )
    op.create_table(
        "review_decisions",
        sa.Column("decision_id", _ROW_ID, primary_key=True),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("domain", sa.Text, nullable=False),
        sa.Column("label", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("author", sa.Text, nullable=False),
        sa.Column("undone_at", sa.Double),
        sa.Column("undone_by", sa.Text, nullable=False, server_default=""),
        sa.Column("undone_why", sa.Text, nullable=False, server_default=""),
        sqlite_autoincrement=True,
    )
    standing = sa.text("undone_at IS NULL")
    op.create_index(
        "review_decisions_standing", "review_decisions", ["domain"], unique=True,
        sqlite_where=standing, postgresql_where=standing,
    )  # fmt: skip


def downgrade() -> None:
    op.drop_table("review_decisions")
    op.drop_table("review_items")
