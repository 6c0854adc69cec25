"""The version of a row's features: only rows of the current one are learned from. Earlier rows have version 1."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("queries", sa.Column("features_version", sa.SmallInteger, nullable=False, server_default="1"))


def downgrade() -> None:
    op.drop_column("queries", "features_version")
