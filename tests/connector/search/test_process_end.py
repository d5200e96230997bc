"""A leg that hangs never delays the end of the process, whichever leg, however it is searched, closed or not."""

import subprocess
import sys
import time

import pytest

PROGRAM = """
import asyncio, sys, time
from bartizan_connector.search.retriever import Retriever
from tests.connector.search.test_retriever import HostLexical, SlowEncoder, filled
from bartizan_connector.testing.encoder_fake import HashEncoder
how, leg, closes = sys.argv[1:]

class Slow(SlowEncoder):
    seconds = 60.0

encoder = Slow() if leg == "dense" else HashEncoder()
words = HostLexical(seconds=60.0 if leg == "lexical" else 0.0)
retriever = Retriever({"dense": encoder}, filled(encoder), words=words)

def search():
    if how == "sync":
        return retriever.search("copy a file", timeout=0.3)
    async def one():
        return await retriever.asearch("copy a file", timeout=0.3)
    return asyncio.run(one())

answer = search()
assert f"no {leg} leg" in answer.degraded, answer
assert len(answer)
if closes == "closes":
    retriever.close()
print("done", time.time(), flush=True)
"""


@pytest.mark.packaging
@pytest.mark.parametrize("closes", ["closes", "exits"])
@pytest.mark.parametrize("leg", ["dense", "lexical"])
@pytest.mark.parametrize("how", ["sync", "async"])
def test_a_process_whose_leg_hangs_ends_at_once(how: str, leg: str, closes: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM, how, leg, closes], capture_output=True, text=True, timeout=60
    )
    ended = time.time()
    assert ran.returncode == 0, ran.stderr
    word, said = ran.stdout.split()
    assert word == "done"
    assert ended - float(said) < 20.0  # the leg hangs for 60
