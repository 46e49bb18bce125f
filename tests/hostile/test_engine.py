"""A real Dask cluster on loopback: what travels, and what happens when workers or the scheduler die or differ."""

import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import closing
from pathlib import Path

import dask
import engine_work as work
import pytest
from distributed import Client

from darkvocab.errors import EngineLost, MissingExtra, NoScheduler, OtherVersion, WorkerDied
from darkvocab.runs.engine import open_engine
from darkvocab.snowballs import run
from darkvocab.snowballs.experiments import Trials

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("dask"),
    pytest.mark.skipif(os.name != "posix", reason="signals of POSIX"),
]


class Cluster:
    """A scheduler and its workers, each a process."""

    def __init__(self, folder):
        self.folder, self.file, self._processes = folder, folder / "scheduler.json", []
        self.scheduler = self.start("scheduler", "--port", "0", DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES="1")
        end = time.monotonic() + 30
        while not (self.file.exists() and self.file.read_text().endswith("}")) and time.monotonic() < end:
            time.sleep(0.02)
        self.spec = f"dask:{self.file}"

    @property
    def address(self):
        return json.loads(self.file.read_text())["address"].removeprefix("tcp://")

    def start(self, kind, *options, first_path="", **environment):
        path = os.pathsep.join([str(first_path), *sys.path])
        command = [Path(sys.executable).with_name("dask"), kind, "--host", "127.0.0.1", "--no-dashboard"]
        with (self.folder / f"{kind}-{len(self._processes)}.log").open("w") as log:
            process = subprocess.Popen(
                [*command, "--scheduler-file", self.file, *options],
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env={**os.environ, "PYTHONPATH": path, **environment},
            )
        self._processes.append(process)
        return process

    def worker(self, **settings):
        return self.start("worker", "--no-nanny", "--nthreads", "1", **settings)

    def n_workers(self):
        with closing(Client(self.address, set_as_default=False)) as client:
            return len(client.nthreads())

    def wait_for(self, n_workers):
        end = time.monotonic() + 30
        while self.n_workers() != n_workers and time.monotonic() < end:
            time.sleep(0.05)
        assert self.n_workers() == n_workers

    def end(self, *workers):
        n_workers = self.n_workers() - len(workers)
        for process in workers:
            process.kill()
            process.wait()
        while self.n_workers() > n_workers:  # the scheduler takes a moment
            time.sleep(0.02)

    def close(self):
        for process in self._processes:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Two workers; a test that ends some starts others."""
    with closing(Cluster(tmp_path_factory.mktemp("cluster"))) as started:
        started.worker()
        started.worker()
        started.wait_for(2)
        yield started


@pytest.fixture
def lone(tmp_path):
    """A scheduler without workers, to be killed."""
    with closing(Cluster(tmp_path)) as started:
        yield started


@pytest.fixture
def other_version(tmp_path):
    """A folder that makes a Python find a darkvocab of another version."""
    folder = tmp_path / "other"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text("import darkvocab\ndarkvocab.__version__ = '0.0.9'\n")
    return folder


@pytest.fixture
def no_darkvocab(tmp_path):
    """A folder that makes a Python find no darkvocab."""
    folder = tmp_path / "none"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text("import sys\nsys.modules['darkvocab'] = None\n")
    return folder


@pytest.fixture(autouse=True)
def settings_are_restored():
    before = logging.getLogger("distributed").level, dask.config.get("distributed.comm.timeouts.tcp")
    yield
    assert (logging.getLogger("distributed").level, dask.config.get("distributed.comm.timeouts.tcp")) == before


def take(results, act, after):
    """All results; something happens after a few of them."""
    taken = []
    for result in results:
        taken.append(result)
        if len(taken) == after:
            act()
    return taken


def test_results_come_in_order_and_settings_travel_once_to_a_worker(cluster, tmp_path):
    shared = work.Counted(tmp_path, 20_000_000)  # more than Dask likes to send with a task
    with open_engine(cluster.spec) as engine, closing(Client(cluster.address, set_as_default=False)) as client:
        client.run_on_scheduler(work.count_fetches)
        done = list(engine.map(work.size_of, shared, range(20)))
        assert list(engine.map(work.add, 10, range(40))) == list(range(10, 50))
        assert (
            client.run_on_scheduler(lambda dask_scheduler: dask_scheduler.n_fetches) == 4
        )  # two settings, two workers
    assert {size for size, _ in done} == {20_000_000}
    assert len({pid for _, pid in done}) == 2
    assert sorted(int(mark.name.split("-")[0]) for mark in tmp_path.iterdir()) == sorted({pid for _, pid in done})


def test_an_address_serves_as_well_as_the_file(cluster):
    for spec in (f"dask://{cluster.address}", f"tcp://{cluster.address}"):
        with open_engine(spec) as engine:
            assert list(engine.map(work.add, 10, range(3))) == [10, 11, 12]


def test_tasks_are_taken_only_so_far_ahead_and_dropped_when_the_caller_stops(cluster):
    taken = []
    with open_engine(cluster.spec) as engine:
        results = engine.map(work.where, 0.05, (taken.append(task) or task for task in range(1000)))
        for done in range(10):
            assert next(results)[0] == done
            assert len(taken) <= done + 4  # two for each of two threads
        results.close()
    assert len(taken) <= 13
    with open_engine(cluster.spec, workers=8) as engine:
        next(engine.map(work.where, 0.05, (taken.append(task) or task for task in range(1000))))
    assert len(taken) <= 13 + 16
    assert len(taken) > 13 + 8


def test_nothing_is_left_on_the_cluster(cluster):
    with open_engine(cluster.spec) as engine, closing(Client(cluster.address, set_as_default=False)) as client:
        results = engine.map(work.add, 10, range(200))
        for _ in range(100):
            next(results)
        assert client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks)) < 30
        engine.close()
        assert client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks)) == 0
        held = client.run_on_scheduler(lambda dask_scheduler: list(dask_scheduler.task_metadata.values()))
        assert set(held) == {None}


def test_an_error_of_the_work_is_raised_as_it_is(cluster):
    with open_engine(cluster.spec) as engine, pytest.raises(KeyError, match="three"):
        list(engine.map(work.refuse_three, 0, range(1000)))


def test_a_worker_that_is_killed_changes_no_result(cluster):
    victim = cluster.worker()
    cluster.wait_for(3)
    with open_engine(cluster.spec) as engine:
        results = take(engine.map(work.square, 0.1, range(40)), victim.kill, after=10)
    assert results == [task**2 for task in range(40)]


def test_a_task_that_kills_its_workers_is_given_up_by_name(cluster):
    cluster.worker()
    cluster.worker()
    cluster.wait_for(4)
    with open_engine(cluster.spec) as engine, pytest.raises(WorkerDied, match=r"task 5 ended every worker .*127\.0"):
        list(engine.map(work.always_die, 5, range(40)))
    cluster.wait_for(2)


def test_a_worker_of_another_version_is_refused_by_name(cluster, other_version):
    differs = cluster.worker(first_path=other_version)
    cluster.wait_for(3)
    message = r"worker tcp://127\.0\.0\.1:\d+ has darkvocab 0\.0\.9, we have .*; install darkvocab=="
    with pytest.raises(OtherVersion, match=message):
        open_engine(cluster.spec)
    cluster.end(differs)


@pytest.mark.parametrize("version", ["0.0.9", "none"])
def test_a_worker_that_joins_later_is_refused_too(cluster, version, other_version, no_darkvocab):
    joined = []

    def join():
        joined.append(cluster.worker(first_path=other_version if version == "0.0.9" else no_darkvocab))

    with open_engine(cluster.spec) as engine, pytest.raises(OtherVersion, match=rf"127.* has darkvocab {version}, we"):
        take(engine.map(work.square, 0.05, range(400)), join, after=5)
    cluster.end(*joined)


def test_workers_may_come_later(lone, monkeypatch):
    monkeypatch.setattr("darkvocab.runs.engine.dask.SILENT", 0.5)
    said = []
    lone_worker = threading.Timer(2, lone.worker)
    lone_worker.start()
    with open_engine(lone.spec, say=said.append) as engine:
        assert list(engine.map(work.add, 10, range(5))) == [10, 11, 12, 13, 14]
    assert len(said) == 1
    assert lone.address in said[0]
    assert "has no workers; waiting" in said[0]
    lone_worker.join()


def test_waiting_for_workers_ends_when_it_should(lone):
    with open_engine(lone.spec, patience=1) as engine, pytest.raises(EngineLost, match="has had no workers for 1 s"):
        list(engine.map(work.add, 10, range(5)))


LOSER = """
    import os, signal, sys, engine_work
    from darkvocab.errors import EngineLost
    from darkvocab.runs.engine import open_engine

    with open_engine(sys.argv[1]) as engine:
        try:
            for done in engine.map(engine_work.square, 0.1, range(400)):
                if done == 9:
                    os.kill(int(sys.argv[2]), signal.SIGKILL)
        except EngineLost as error:
            print(error)
"""


def test_a_scheduler_that_is_killed_ends_the_run_with_a_sentence_and_nothing_else(lone):
    lone.worker()
    started = time.monotonic()
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(LOSER), lone.spec, str(lone.scheduler.pid)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
    )
    assert time.monotonic() - started < 15
    assert re.fullmatch(r"the Dask scheduler at \S+ went away; .*--resume goes on\n", ran.stdout)
    assert ran.stderr == ""
    assert ran.returncode == 0


def test_a_scheduler_that_falls_silent_is_given_up(lone, monkeypatch):
    monkeypatch.setattr("darkvocab.runs.engine.dask.LOST", 3.0)
    lone.worker()
    stopped = []

    def stop():
        lone.scheduler.send_signal(signal.SIGSTOP)
        stopped.append(time.monotonic())

    with open_engine(lone.spec) as engine, pytest.raises(EngineLost, match="went away"):
        take(engine.map(work.square, 0.1, range(400)), stop, after=3)
    assert 2 < time.monotonic() - stopped[0] < 10


def test_where_no_scheduler_answers_we_say_so_within_ten_seconds(capfd, monkeypatch):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        started = time.monotonic()
        with pytest.raises(NoScheduler, match=rf"no Dask scheduler answers at {address} .*check the address"):
            open_engine(f"dask://{address}")  # refuses
        assert time.monotonic() - started < 10
        silent.listen()
        monkeypatch.setattr("darkvocab.runs.engine.dask.CONNECT", 2.0)
        started = time.monotonic()
        with pytest.raises(NoScheduler, match="silence"):
            open_engine(f"dask://{address}")  # accepts, and says nothing
        assert time.monotonic() - started < 4
    assert capfd.readouterr() == ("", "")


def test_what_is_no_address_is_refused(tmp_path):
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(ValueError, match=r"list\.json is no scheduler file: `dask scheduler --scheduler-file"):
        open_engine(f"dask:{tmp_path / 'list.json'}")
    with pytest.raises(FileNotFoundError):
        open_engine(f"dask:{tmp_path / 'none.json'}")
    for spec in ("dask://host", "dask:///", "tcp://host:port"):
        with pytest.raises(ValueError, match=r"cannot read the address .* write it as dask://HOST:PORT"):
            open_engine(spec)


def test_without_dask_the_install_command_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(MissingExtra, match=r"pip install 'darkvocab\[dask\]'"):
        open_engine("dask://127.0.0.1:8786")


# Whole runs on the cluster ------------------------------------------------------------------------------------------


def folder_bytes(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def trials():
    return Trials(2e-9, n_tokens=200, trials=320, epsilon=1e-5, base="qwen3-4b-centred")


def test_a_run_folder_is_the_same_bytes_when_a_worker_is_killed(cluster, tmp_path):
    run.land(trials(), tmp_path / "here", engine="serial")
    victim = cluster.worker()
    cluster.wait_for(3)
    reports = []

    def kill(done, total):
        reports.append(done)
        if 0 < done < total and victim.poll() is None:
            victim.kill()
            victim.wait()

    run.land(trials(), tmp_path / "there", engine=cluster.spec, progress=kill)
    assert victim.poll() is not None
    assert len(reports) == 17
    assert folder_bytes(tmp_path / "here") == folder_bytes(tmp_path / "there")
    cluster.wait_for(2)


def test_a_run_whose_scheduler_is_killed_goes_on_elsewhere_to_the_same_bytes(lone, tmp_path):
    run.land(trials(), tmp_path / "here", engine="serial")
    lone.worker()
    lone.wait_for(1)

    def kill(done, total):
        if done >= 60:
            lone.scheduler.kill()

    with pytest.raises(EngineLost, match="--resume goes on"):
        run.land(trials(), tmp_path / "there", engine=lone.spec, progress=kill)
    landed = json.loads((tmp_path / "there" / "manifest.json").read_text())
    assert landed["status"] == "interrupted"
    run.land(trials(), tmp_path / "there", engine="threads", workers=2, resume=True)
    assert folder_bytes(tmp_path / "here") == folder_bytes(tmp_path / "there")


def test_no_folder_is_made_where_no_scheduler_answers(tmp_path):
    with closing(socket.socket()) as port:
        port.bind(("127.0.0.1", 0))
        with pytest.raises(NoScheduler):
            run.land(trials(), tmp_path / "run", engine=f"dask://127.0.0.1:{port.getsockname()[1]}")
    assert not (tmp_path / "run").exists()


def test_the_command_line_says_what_is_wrong_with_an_engine(tmp_path):
    command = [Path(sys.executable).with_name("darkvocab"), "trials", "--sigma", "2e-9", "--out", tmp_path / "run"]
    for engine, code, says in (
        ("dask://127.0.0.1:1", 3, "127.0.0.1:1"),
        ("daks://127.0.0.1:1", 2, "choose local, serial, threads, processes"),
        (f"dask:{tmp_path}/no.json", 3, "no.json"),
    ):
        ran = subprocess.run([*command, "--engine", engine], capture_output=True, text=True)
        assert (ran.returncode, ran.stdout) == (code, ""), ran.stderr
        assert says in ran.stderr
        assert "Traceback" not in ran.stderr
        assert not (tmp_path / "run").exists()
