"""Shapes of what the API says of a fleet."""

from __future__ import annotations

from pydantic import BaseModel, Field


class FleetMemberRow(BaseModel):
    site: str = Field(examples=["north"])
    sent: bool = Field(description="whether it has sent in the open round")
    sent_at: float | None = Field(examples=[1767225600.25], description="Unix seconds; null = never")


class FleetPartJoined(BaseModel):
    """What a round took of one site: sizes and counts, nothing of the contents."""

    site: str = Field(examples=["north"])
    change: float = Field(examples=[0.42], description="length of its change of the flow model")
    clipped: bool = Field(description="whether that was longer than a site may send, and shortened")
    weights_joined: int = Field(examples=[19], description="weights where what it sent was not trimmed, of 27")
    clients: int = Field(examples=[310], description="of its counts, with their noise")
    domains: int = Field(examples=[812])
    domains_joined: int = Field(examples=[640], description="that another site sent, too")
    habits: int = Field(examples=[41])
    habits_joined: int = Field(examples=[30])
    habits_lowered: int = Field(examples=[12], description="of which it said more than what is passed on")
    trees: int = Field(examples=[64])
    trees_joined: int = Field(examples=[64])


class FleetRoundJoined(BaseModel):
    round: int = Field(examples=[11])
    at: float = Field(examples=[1767225600.25], description="Unix seconds")
    sites: list[FleetPartJoined]


class FleetCoordinated(BaseModel):
    """This installation as the coordinator of others."""

    round: int = Field(examples=[12], description="the open one")
    ends_at: float = Field(examples=[1767225600.25], description="Unix seconds")
    sites_min: int = Field(examples=[3], description="sites that a round needs")
    sites: list[FleetMemberRow]
    domains: int = Field(examples=[640], description="that several sites know")
    kinds: dict[str, int] = Field(examples=[{"reputation by hash": 2}], description="domains with a habit, by kind")
    last: FleetRoundJoined | None


class FleetQuantile(BaseModel):
    share: float = Field(examples=[0.9], description="so large a share of the clients")
    here: int | None = Field(examples=[4096], description="carries fewer bytes on its busiest day; null = unknown")
    fleet: int | None = Field(examples=[2048])


class FleetSiteSeen(BaseModel):
    """This installation as a site of a fleet."""

    coordinator: str = Field(examples=["https://console.hq.example"])
    site: str = Field(examples=["north"])
    taken: int = Field(examples=[11], description="round whose result was taken last; 0 = none")
    sent_round: int | None = Field(examples=[12])
    sent_at: float | None = Field(examples=[1767225600.25], description="Unix seconds")
    sites: int = Field(examples=[3], description="in the round that was taken last")
    domains: int = Field(examples=[640], description="that several sites know")
    kinds: dict[str, int] = Field(examples=[{"reputation by hash": 2}], description="domains with a habit, by kind")
    quantiles: list[FleetQuantile]


class FleetStatus(BaseModel):
    coordinator: FleetCoordinated | None = Field(description="null = no site takes part here")
    site: FleetSiteSeen | None = Field(description="null = this installation takes part in none")
