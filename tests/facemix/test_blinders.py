"""The pool: what it gives once, it never gives again."""

import contextlib
import hashlib
import itertools
import os
import random
import resource
import signal
import sqlite3
import stat
import subprocess
import sys
import time

import numpy as np
import pytest
from facemix.edge import Blinders, BlindersError
from facemix.edge.blinding import Blinding

ROWS = 40

TAKER = """
import sys
from facemix.edge import Blinders
pool = Blinders(sys.argv[1])
while True:
    seeds, outputs = pool.take(2)
    for seed in seeds:
        print(seed.hex())
    sys.stdout.flush()
"""


def seed(number):
    return hashlib.sha256(str(number).encode()).digest()


@pytest.fixture
def make(tmp_path):
    names = itertools.count()

    def pool(rows=ROWS):
        pairs = ((seed(n), np.full(3, n, np.float32)) for n in range(rows))
        return Blinders.create(tmp_path / f"pool{next(names)}", "network", Blinding(0.5, 2.0), (2, 3, 3), pairs)

    return pool


def test_rows_come_once_with_their_outputs(make):
    pool = make()
    seen = []
    while pool.left:
        seeds, outputs = pool.take(4)
        assert outputs.shape == (4, 3)
        assert [seed(int(output[0])) for output in outputs] == seeds
        seen += seeds
    assert sorted(seen) == sorted(seed(n) for n in range(ROWS))


def test_settings_come_back(make):
    pool = Blinders(make().path)
    assert (pool.network, pool.blinding) == ("network", Blinding(0.5, 2.0))
    assert (pool.features_shape, pool.outputs_shape) == ((2, 3, 3), (3,))


@pytest.mark.parametrize(
    "change", ["features = 'x'", "features = '[-1]'", "outputs = '3'", "outputs = '[1e9]'", "share = 'a'", "energy = 0"]
)
def test_damaged_settings_are_refused(make, change):
    pool = make()
    with contextlib.closing(sqlite3.connect(pool.path)) as database:
        database.execute(f"UPDATE pool SET {change}")
        database.commit()
    with pytest.raises(BlindersError, match="must hold the settings of a pool, got damaged ones: "):
        Blinders(pool.path)


def test_a_pool_with_too_few_rows_gives_none(make):
    pool = make(5)
    with pytest.raises(BlindersError, match=r"a row for each that is sent, 6, got 5: rows are used once"):
        pool.take(6)
    assert pool.left == 5


def test_nobody_but_the_owner_may_read_it(make):
    assert stat.S_IMODE(make().path.stat().st_mode) == 0o600


def test_nothing_is_left_of_a_taken_row(make):
    pool = make()
    seeds, _ = pool.take(ROWS // 2)
    data = pool.path.read_bytes()
    assert not any(taken in data for taken in seeds)
    assert seed(ROWS - 1) in data
    assert [path.name for path in pool.path.parent.iterdir()] == [pool.path.name]  # no journal either


def test_a_row_is_gone_from_the_disk_before_it_is_given(make):
    """The commit waits for the disk, and for the end of the journal, which would bring rows back."""
    with make()._open() as database:
        assert database.execute("PRAGMA synchronous").fetchone() == (3,)
        assert database.execute("PRAGMA journal_mode").fetchone() == ("delete",)


def test_processes_share_no_row(make):
    pool = make(300)
    takers = [
        subprocess.Popen([sys.executable, "-c", TAKER, pool.path], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(3)
    ]
    said = [taker.communicate() for taker in takers]
    assert all(b"a row for each that is sent, 2, got 0" in error for _, error in said)  # when nothing was left
    taken = [bytes.fromhex(line.decode()) for output, _ in said for line in output.split()]
    assert sorted(taken) == sorted(seed(n) for n in range(300))


def test_who_is_killed_at_any_moment_gives_no_row_twice(make):
    pool, draw = make(4000), random.Random(0)
    given = []
    for _ in range(6):
        process = subprocess.Popen([sys.executable, "-c", TAKER, pool.path], stdout=subprocess.PIPE)
        first = process.stdout.readline()  # it has begun
        time.sleep(draw.uniform(0, 0.05))
        process.send_signal(signal.SIGKILL)
        rest, _ = process.communicate()
        whole = [line for line in (first + rest).split(b"\n") if len(line) == 64]
        given += [bytes.fromhex(line.decode()) for line in whole]
    left = pool.left
    given += pool.take(left)[0]
    assert len(given) > left
    assert len(set(given)) == len(given)


def test_a_transaction_that_was_cut_short_is_undone_and_had_given_nothing(make):
    """Killed between deletion and commit: the rows are there again, and nobody had them."""
    pool = make(10)
    code = (
        "import os, sys\nfrom facemix.edge import Blinders\nwith Blinders(sys.argv[1])._open() as database:\n"
        " database.execute('PRAGMA cache_size = 1'); database.execute('BEGIN EXCLUSIVE')\n"
        " database.execute('DELETE FROM rows')\n os.kill(os.getpid(), 9)\n"
    )
    assert subprocess.run([sys.executable, "-c", code, pool.path], check=False).returncode == -signal.SIGKILL
    assert pool.take(10)[0] == [seed(n) for n in range(10)]


def test_a_half_written_pool_is_not_left_behind(tmp_path):
    def broken():
        yield seed(0), np.zeros(3, np.float32)
        raise RuntimeError("the cloud's half fails")

    with pytest.raises(RuntimeError, match="fails"):
        Blinders.create(tmp_path / "pool", "network", Blinding(0.5, 2.0), (2, 3, 3), broken())
    assert not os.listdir(tmp_path)


def test_a_pool_without_rows_is_refused(tmp_path, make):
    with pytest.raises(ValueError, match=r"Blinders\.create: rows must be at least one, got none"):
        make(rows=0)
    assert not os.listdir(tmp_path)


def test_a_full_disk_is_named_and_leaves_nothing(tmp_path, make):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))  # a write beyond it fails, as on a full disk
    try:
        with pytest.raises(BlindersError, match=rf"^{tmp_path / 'pool0'}: must be a file .* that can be changed, "):
            make(rows=1000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not os.listdir(tmp_path)


def test_who_is_killed_while_a_pool_is_made_leaves_none_and_makes_another(tmp_path, make):
    code = (
        "import os, sys\nimport numpy as np\nfrom facemix.edge import Blinders\n"
        "from facemix.edge.blinding import Blinding\ndef rows():\n"
        " yield bytes(32), np.zeros(3, np.float32)\n os.kill(os.getpid(), 9)\n"
        "Blinders.create(sys.argv[1], 'network', Blinding(0.5, 2.0), (2, 3, 3), rows())\n"
    )
    process = subprocess.run([sys.executable, "-c", code, tmp_path / "pool0"], check=False)
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "pool0").exists()
    (left,) = tmp_path.iterdir()
    assert stat.S_IMODE(left.stat().st_mode) == 0o700
    assert make().path == tmp_path / "pool0"
    assert make().left == ROWS


def test_a_pool_without_settings_is_refused(make):
    pool = make()
    with pool._open() as database:
        database.execute("DELETE FROM pool")
    with pytest.raises(BlindersError, match="must be a whole pool, got one whose making was interrupted"):
        Blinders(pool.path)


def test_a_pool_is_not_written_over(make):
    pool = make()
    with pytest.raises(FileExistsError):
        Blinders.create(pool.path, "network", Blinding(0.5, 2.0), (2, 3, 3), [])
    assert pool.left == ROWS


def test_a_pool_that_somebody_else_made_meanwhile_is_not_written_over(tmp_path):
    def rows():
        (tmp_path / "pool").write_text("theirs")
        yield seed(0), np.zeros(3, np.float32)

    with pytest.raises(FileExistsError):
        Blinders.create(tmp_path / "pool", "network", Blinding(0.5, 2.0), (2, 3, 3), rows())
    assert (tmp_path / "pool").read_text() == "theirs"
    assert os.listdir(tmp_path) == ["pool"]


def test_what_is_no_pool_is_refused(tmp_path, make):
    with pytest.raises(FileNotFoundError):
        Blinders(tmp_path / "missing")
    assert not (tmp_path / "missing").exists()
    (tmp_path / "text").write_text("not a database, but as long as the header of one would be" * 10)
    with pytest.raises(BlindersError, match="must be a file of `facemix blind`"):
        Blinders(tmp_path / "text")
    with sqlite3.connect(tmp_path / "other") as database:
        database.execute("CREATE TABLE pool (network TEXT)")
    with pytest.raises(BlindersError, match="must be a file of `facemix blind`, got something else"):
        Blinders(tmp_path / "other")


@pytest.mark.parametrize("part", ["seed", "output"])
def test_a_damaged_row_is_refused_and_gone(make, part):
    pool = make(3)
    with pool._open() as database:
        database.execute(f"UPDATE rows SET {part} = x'00' WHERE number = 1")
    with pytest.raises(BlindersError, match="got a damaged one"):
        pool.take(1)
    assert pool.left == 2
