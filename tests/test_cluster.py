import jax
import numpy as np
import pytest
from jax.experimental import multihost_utils

from siamjax import cluster


def test_a_process_by_itself_joins_nothing():
    assert not cluster.join()
    assert cluster.is_main()


@pytest.mark.parametrize(
    ("told", "text"),
    [
        ({"coordinator": "here:1"}, "belong together; got here:1, None and None"),
        ({"coordinator": "here:1", "process": 2, "processes": 2}, "from 0 to --processes - 1 = 1"),
        ({"process": 0, "automatic": True}, "--distributed reads"),
    ],
)
def test_what_does_not_fit_together_is_refused(told, text):
    with pytest.raises(cluster.ClusterError, match=text):
        cluster.join(**told)


def test_an_environment_that_says_nothing_is_told_of(monkeypatch):
    for name in ("SLURM_JOB_ID", "OMPI_MCA_orte_hnp_uri", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(cluster.ClusterError, match="--coordinator=HOST:PORT --process=I"):
        cluster.join(automatic=True)


def test_what_is_given_reaches_jax(monkeypatch):
    heard = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *a, **k: heard.append((a, k)))
    assert cluster.join("here:1", 1, 2, heartbeat=20)
    assert cluster.join(automatic=True)
    assert heard == [
        (("here:1", 2, 1), {"heartbeat_timeout_seconds": 20}),
        ((None, None, None), {"heartbeat_timeout_seconds": 100}),
    ]


def test_processes_agree_or_not(monkeypatch):
    assert cluster.all_ready(True)
    assert not cluster.all_ready(False)
    assert cluster.all_same("a")
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(multihost_utils, "process_allgather", lambda own: np.stack([own, own]))
    assert cluster.all_ready(True)
    assert cluster.all_same("a")
    monkeypatch.setattr(multihost_utils, "process_allgather", lambda own: np.stack([own, 0 * own]))
    assert not cluster.all_ready(True)
    assert not cluster.all_same("a")
