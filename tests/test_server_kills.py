"""kill -9 of a backend and of the postmaster at any moment loses nothing that was acknowledged.

RUNTIME_REGISTRY_KILLS says how often (6 if unset), RUNTIME_REGISTRY_SEED what comes up.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from contextlib import closing

import pytest

import figures
from own_server import OwnServer
from random_load import random_load, torn

KILLS = int(os.environ.get("RUNTIME_REGISTRY_KILLS", "6"))
SEED = int(os.environ.get("RUNTIME_REGISTRY_SEED", "1"))
VICTIMS = ["backend", "postmaster", "everything"]


@pytest.mark.timeout(120 + 5 * KILLS)
def test_a_killed_server_has_torn_no_pair_and_lost_no_acknowledged_change(own: OwnServer) -> None:
    dice, kills = random.Random(SEED), Counter[str]()
    with closing(own.connect()) as conn, random_load(conn, lambda _: own.connect(), SEED) as load:
        for number in range(KILLS):
            load.wait_for(dice.randrange(1, 60))
            victim = VICTIMS[number % len(VICTIMS)]
            if victim == "backend":
                own.kill_backend(dice)
            else:
                own.kill(with_all=victim == "everything")
                own.start()
            kills[victim] += 1
            with closing(own.connect_patiently()) as recovered:
                assert torn(recovered) == []
        load.wait_for(20)
    with closing(own.connect()) as conn:
        done = load.check(conn)
    assert done["unacknowledged"] > 0
    figures.record("server kills", kills=KILLS, **kills, **done)
