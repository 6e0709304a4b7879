"""The faults of a campaign. Each module registers those of one kind; importing this brings all."""

from tests.campaign.faults import (
    clients,
    clock,
    disk,
    files,
    journal,
    peers,
    processes,
    server,
)
from tests.campaign.faults.registry import FAULTS, Fault, Planned, plan

__all__ = [
    "FAULTS",
    "Fault",
    "Planned",
    "clients",
    "clock",
    "disk",
    "files",
    "journal",
    "peers",
    "plan",
    "processes",
    "server",
]
