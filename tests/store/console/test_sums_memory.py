"""An hour with very many queries, names, clients and domains is summed up in little memory, and to the same sums."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import func, select

from agents.store import open_store
from agents.store.console.tables import CLIENT_DAYS, DOMAIN_DAYS, QUERY_DOMAINS, QUERY_HOURS, QUERY_NAMES, QUERY_PAIRS
from tests.support.patience import patient
from tests.support.verdicts import START, verdicts

ROWS, CLIENTS, MORE_MIB = 60_000, 3_000, 40
SUM_UP = f"""
import resource, sys, time
from pathlib import Path
from agents.store import open_store, sqlite
from agents.store.console import summing
sqlite.CACHE_KIB, summing.QUERIES_AT_ONCE = 2_048, 7_000
store = open_store(sys.argv[1])
sums = summing.QuerySums(store)
sums.catch_up(0.0)  # looks at the database, and sums up nothing: all that is loaded is loaded
status = Path("/proc/self/status").read_text().split()
most = (int(status[status.index("VmSize:") + 1]) << 10) + ({MORE_MIB} << 20)
resource.setrlimit(resource.RLIMIT_AS, (most, most))
print(sums.catch_up(time.time()))
"""


@pytest.mark.slow
def test_an_hour_of_very_many_names_and_flows_is_summed_up_in_little_memory(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'queries.db'}"
    with closing(open_store(url)) as store:
        store.migrate()
        names = [f"a-name-that-never-comes-again-{row}.shop{row % (ROWS // 2)}.example" for row in range(ROWS)]
        clients = [f"10.0.{row % CLIENTS // 250}.{row % 250}" for row in range(ROWS)]
        store.write(verdicts(names, ts=[START + 3_599.0 * row / ROWS for row in range(ROWS)], client=clients), "b")
        store.write(verdicts(["one.later.example"], ts=[START + 86_400.0]), "the day is over")
        done = subprocess.run(
            [sys.executable, "-c", SUM_UP, url], capture_output=True, text=True, timeout=patient(120),
            env=os.environ | {"COMPILED": "off"}, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stdout.strip()) == (0, "2"), done.stderr[-2_000:]
        with store.reading("look") as connection:
            told = {
                table.name: connection.execute(select(func.count()).select_from(table)).scalar()
                for table in (QUERY_HOURS, QUERY_NAMES, QUERY_DOMAINS, QUERY_PAIRS, CLIENT_DAYS, DOMAIN_DAYS)
            }
            sums = [
                tuple(connection.execute(select(func.sum(table.c.queries), func.sum(table.c.others))).one())
                for table in (QUERY_HOURS, CLIENT_DAYS, DOMAIN_DAYS)
            ]
            odd = connection.execute(select(QUERY_NAMES).where(QUERY_NAMES.c.hours != str(int(START // 3600)))).all()
    pairs = len(set(zip(clients, (name.partition(".")[2] for name in names), strict=True)))
    assert told == {
        "query_hours": pairs + 1, "query_names": ROWS + 1, "query_domains": ROWS // 2 + 1, "query_pairs": pairs,
        "query_client_days": CLIENTS, "query_domain_days": ROWS // 2,
    }  # fmt: skip
    assert sums == [(ROWS + 1, pairs + 1), (ROWS, pairs), (ROWS, pairs)]
    assert {row.name for row in odd} == {"one.later.example"}
