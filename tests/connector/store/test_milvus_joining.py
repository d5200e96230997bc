"""Who joins a group of writers while its epoch ends under it begins again with the one that stands."""

import pytest
from pymilvus import MilvusException

from bartizan_connector.store.milvus.failures import calling
from bartizan_connector.store.milvus.lease import Lease
from bartizan_connector.testing.rows import named, row
from tests.connector.store.test_milvus_lease import backends
from tests.servers.milvus import MilvusServer


@pytest.mark.server
def test_a_member_whose_epoch_ends_as_it_joins_joins_the_next(
    milvus: MilvusServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = backends(milvus.uri, 2)
    one, other = first.open(named("joining")), second.open(named("joining"))
    one.claim("workers")
    tried, write = list[int](), Lease._write

    def gone_at_first(lease: Lease, epoch: int) -> None:
        tried.append(epoch)
        if len(tried) == 1:
            with calling(milvus.uri):
                raise MilvusException(100, "collection not found[collection=bartizan_writer_0]")
        write(lease, epoch)

    monkeypatch.setattr(Lease, "_write", gone_at_first)
    other.claim("workers")
    assert len(tried) == 2
    other.upsert([row("a", [1, 0, 0, 0])])
    assert other.heads(["a"]).keys() == {"a"}
    second.close()
    first.close()
