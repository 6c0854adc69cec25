"""The database itself refuses to change or delete entries of the audit log."""

from __future__ import annotations

from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

_WHY = "cannot change the audit log: entries are only added"
_SQLITE = """
CREATE TRIGGER audit_log_{when} BEFORE {when} ON audit_log
BEGIN SELECT RAISE(ABORT, '{why}'); END
"""
_POSTGRES = (
    f"""
CREATE FUNCTION audit_log_kept() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION '{_WHY}'; END $$
""",
    """
CREATE TRIGGER audit_log_kept BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_log
FOR EACH STATEMENT EXECUTE FUNCTION audit_log_kept()
""",
)


def upgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        for when in ("update", "delete"):
            op.execute(_SQLITE.format(when=when, why=_WHY))
        return
    for statement in _POSTGRES:
        op.execute(statement)


def downgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        for when in ("update", "delete"):
            op.execute(f"DROP TRIGGER audit_log_{when}")
        return
    op.execute("DROP TRIGGER audit_log_kept ON audit_log")
    op.execute("DROP FUNCTION audit_log_kept()")
