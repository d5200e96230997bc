"""MilvusBackend on the real Milvus server that the PyPI package `milvus` carries, killed and started again."""

import pytest
from pymilvus import MilvusClient

from bartizan_connector.errors import Stop
from bartizan_connector.milvus import MilvusBackend
from bartizan_connector.testing.backend import BackendSuite
from bartizan_connector.testing.rows import COLLECTION
from tests.servers import MilvusServer

pytestmark = pytest.mark.server

NO_SPARSE = pytest.mark.xfail(strict=True, raises=Stop, reason="the server is 2.3.5, sparse vectors came with 2.4")


class TestMilvusServer(BackendSuite):
    @pytest.fixture(autouse=True)
    def _on_a_server(self, milvus: MilvusServer) -> None:
        self.uri = milvus.uri

    def make(self) -> MilvusBackend:
        """Making a collection takes seconds, so one is emptied behind the back-end's back."""
        client = MilvusClient(self.uri, timeout=30)
        for name, field in ((COLLECTION.name, "pk"), (f"{COLLECTION.name}__heads", "id")):
            if client.has_collection(name):
                client.delete(name, filter=f'{field} != ""', timeout=30)
        client.close()
        return MilvusBackend(self.uri, consistency="Strong")

    @NO_SPARSE
    def test_a_sparse_leg_ranks_by_inner_product_and_leaves_out_what_shares_no_term(self) -> None:
        super().test_a_sparse_leg_ranks_by_inner_product_and_leaves_out_what_shares_no_term()

    @NO_SPARSE
    def test_one_row_can_be_searched_by_a_dense_and_by_a_sparse_leg(self) -> None:
        super().test_one_row_can_be_searched_by_a_dense_and_by_a_sparse_leg()
