"""The shapes of answers about users, tokens and sessions."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

RoleName = Literal["viewer", "analyst", "operator", "admin"]
ScopeName = Literal["metrics", "read", "triage", "operate", "admin"]


class UserEntry(BaseModel):
    name: str = Field(examples=["ann"])
    role: RoleName = Field(examples=["analyst"])
    has_password: bool
    by_provider: bool = Field(description="logs in through OpenID Connect")
    made_at: float = Field(examples=[1767225600.25], description="Unix seconds")
    made_by: str = Field(examples=["bea"])
    disabled_at: float | None = Field(examples=[None])
    link_until: float | None = Field(examples=[None], description="a one-time link is open until then")
    last_login: float | None = Field(examples=[1767229200.0])


class UserList(BaseModel):
    users: list[UserEntry]


class UserAdd(BaseModel):
    name: str = Field(examples=["ann"], max_length=64)
    role: RoleName = Field(examples=["analyst"])


class UserNamed(BaseModel):
    name: str = Field(examples=["ann"], max_length=64)


class UserChange(UserNamed):
    role: RoleName | None = Field(None, examples=["operator"])
    disabled: bool | None = Field(None, description="true ends sessions and tokens at once")


class UserLink(BaseModel):
    name: str = Field(examples=["ann"])
    link: str = Field(
        examples=["https://console.example/login/link/kD3…"],
        description="shown once; whoever opens it first sets the password, within 24 hours",
    )


class TokenEntry(BaseModel):
    token_id: str = Field(examples=["3f9a2c1177d0"])
    name: str = Field(examples=["ann"], description="whose it is")
    what_for: str = Field(examples=["tickets"])
    scopes: list[ScopeName] = Field(examples=[["read", "triage"]])
    made_at: float = Field(examples=[1767225600.25])
    until: float = Field(examples=[1775001600.25])
    used_at: float | None = Field(examples=[None], description="to the minute")
    revoked_at: float | None = Field(examples=[None])
    revoked_by: str = Field(examples=[""])


class TokenList(BaseModel):
    tokens: list[TokenEntry]


class TokenMake(BaseModel):
    what_for: str = Field(examples=["tickets"], max_length=100)
    scopes: list[ScopeName] = Field(examples=[["read"]], min_length=1, max_length=5)
    days: float = Field(90, gt=0, le=366, allow_inf_nan=False)


class TokenMade(BaseModel):
    token: str = Field(examples=["dnst_3f9a2c1177d0_…"], description="shown once")
    token_id: str = Field(examples=["3f9a2c1177d0"])


class TokenRevoke(BaseModel):
    token_id: str = Field(examples=["3f9a2c1177d0"], max_length=40)


class Whoami(BaseModel):
    name: str = Field(examples=["ann"], description="empty: the API token, which is nobody's")
    scopes: list[ScopeName] = Field(examples=[["read", "metrics"]])
