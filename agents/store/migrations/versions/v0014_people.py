"""Users, their sessions, and tokens for programs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "users",
        sa.Column("name", sa.Text, primary_key=True),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("role", "password", "subject")),
        sa.Column("made_at", sa.Double, nullable=False),
        sa.Column("made_by", sa.Text, nullable=False),
        sa.Column("disabled_at", sa.Double),
        sa.Column("link", sa.Text, nullable=False),
        sa.Column("link_until", sa.Double, nullable=False),
        sa.Column("failed", sa.Integer, nullable=False),
        sa.Column("locked_until", sa.Double, nullable=False),
        sa.Column("last_login", sa.Double),
    )
    op.create_index("users_subject", "users", ["subject"])
    op.create_table(
        "user_sessions",
        sa.Column("session", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("began_at", sa.Double, nullable=False),
        sa.Column("until", sa.Double, nullable=False),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("address", "browser")),
    )
    op.create_index("user_sessions_name", "user_sessions", ["name"])
    op.create_table(
        "api_tokens",
        sa.Column("token_id", sa.Text, primary_key=True),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("name", "what_for", "secret", "scopes")),
        sa.Column("made_at", sa.Double, nullable=False),
        sa.Column("until", sa.Double, nullable=False),
        sa.Column("used_at", sa.Double),
        sa.Column("revoked_at", sa.Double),
        sa.Column("revoked_by", sa.Text, nullable=False),
    )
    op.create_index("api_tokens_name", "api_tokens", ["name"])


def downgrade() -> None:
    for table in ("api_tokens", "user_sessions", "users"):
        op.drop_table(table)
