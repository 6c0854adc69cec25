"""Where clients' state lies on a bus, none is erased in part."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from agents.runtime import bootstrap
from tests.support.commands import Done, is_one_line, run_inside
from tests.support.verdicts import verdicts


def test_a_client_is_not_erased_where_its_state_lies_on_a_bus(tmp_path: Path) -> None:
    def inside(*words: str, **settings: str) -> Done:
        return run_inside(tmp_path, "client", *words, **settings)

    inside("export", "192.0.2.7")
    with closing(bootstrap.store_of(bootstrap.load_settings(data_dir=tmp_path / "data"))) as store:
        store.migrate()
        store.write(verdicts(["a.example"], client="192.0.2.7"), "b1")
    before = inside("export", "192.0.2.7").out
    assert "a.example" in before
    for words in (("erase", "192.0.2.7", "--yes"), ("erase", "192.0.2.7")):
        refused = inside(*words, STREAM="nats://127.0.0.1:9")
        assert refused.code == 2 and is_one_line(refused)
        assert refused.err.startswith("dns-tunnel: cannot erase 192.0.2.7: state of clients lies on the bus")
    assert inside("export", "192.0.2.7", STREAM="nats://127.0.0.1:9").out == before
    assert inside("erase", "192.0.2.7", "--yes").code == 0
