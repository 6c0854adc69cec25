"""Of each slot of the bus the token of the detector that writes for it: what an earlier one still has is refused."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "slot_tokens",
        sa.Column("slot", sa.Text, primary_key=True),
        sa.Column("token", sa.BigInteger, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("slot_tokens")
