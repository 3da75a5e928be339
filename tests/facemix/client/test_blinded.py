"""What a client with one-time blinders sends, and makes of the answer."""

import pickle
import secrets

import grpc
import numpy as np
import pytest
from edge_halves import DECOYS, GROUP, MIDDLE, check, images
from facemix.edge import BlindedHalf, Blinders, BlindersError, Client, CloudMismatch, CloudReplyError
from facemix.edge.blinding import Blinding
from fake_cloud import failing

SHARE = 0.01


@pytest.fixture
def pool(half, tmp_path):
    blinding, shape = Blinding.of(half, DECOYS, SHARE), half.bundle.features_shape
    seeds = [secrets.token_bytes(32) for _ in range(3 * GROUP)]
    outputs = blinding.rows(seeds, shape).reshape(len(seeds), -1) @ MIDDLE
    return Blinders.create(tmp_path / "pool", half.bundle.network, blinding, shape, zip(seeds, outputs, strict=True))


def sent(cloud):
    """All rows that the cloud got, one below the other."""
    rows = [np.frombuffer(request.raw_input_contents[0], np.float32) for request in cloud.requests]
    return np.concatenate([row.reshape(-1, len(MIDDLE)) for row in rows])


def test_predictions_are_those_without_blinding(half, pool, server):
    with Client(BlindedHalf(half, pool), server.address, decoys=DECOYS) as client:
        check(client.classify(images(2 * GROUP)), images(2 * GROUP), tolerance=1e-3)
        check(client.classify(images(GROUP - 1, seed=3)), images(GROUP - 1, seed=3), tolerance=1e-3)
    assert pool.left == 0


def test_a_cloud_that_does_not_take_float32(half, pool, cloud, server):
    cloud.metadata.properties["datatypes"] = "FP16"
    with (
        Client(BlindedHalf(half, pool), server.address) as client,
        pytest.raises(CloudMismatch, match="must take FP32, got 'FP16'"),
    ):
        client.classify(images(GROUP))
    assert pool.left == 3 * GROUP


def test_what_is_sent_is_noise(half, pool, cloud, server):
    with Client(BlindedHalf(half, pool), server.address) as client:
        client.classify(images(2 * GROUP))
    rows = sent(cloud)
    assert rows.std() == pytest.approx(pool.blinding.level, rel=0.05)
    assert np.abs(rows.mean(0)).max() < 4 * pool.blinding.level / np.sqrt(len(rows))  # features are positive
    assert np.abs(np.corrcoef(rows) - np.eye(len(rows))).max() < 0.4
    np.testing.assert_array_equal(rows % pool.blinding.step, 0)  # no more digits than noise may have


def test_a_further_attempt_takes_no_more_rows(half, pool, cloud, server):
    cloud.behave = failing(grpc.StatusCode.UNAVAILABLE, times=1)
    with Client(BlindedHalf(half, pool), server.address) as client:
        check(client.classify(images(GROUP)), images(GROUP), tolerance=1e-3)
    assert pool.left == 2 * GROUP
    first, second = np.split(sent(cloud), 2)
    assert np.array_equal(first, second)


def test_further_requests_take_rows_of_their_own(half, pool, cloud, server):
    with Client(BlindedHalf(half, pool), server.address) as client:
        for _ in range(2):
            client.classify(images(GROUP))
    assert pool.left == GROUP
    first, second = np.split(sent(cloud), 2)
    apart = np.abs(first[:, None] - second).mean(2)
    assert apart.min() > 0.5 * pool.blinding.level  # with a row of the first, the noise would fall out


def test_a_reply_too_large_to_unblind_is_refused(half, pool, server):
    async def behave(cloud, number, request, context):
        answer = cloud.answer(request)
        answer.raw_output_contents[0] = np.full(GROUP * MIDDLE.shape[1], 3e38, np.float32).tobytes()
        return answer

    server.cloud.behave = behave
    with (
        Client(BlindedHalf(half, pool), server.address) as client,
        pytest.raises(CloudReplyError, match="must be finite"),
    ):
        client.classify(images(GROUP))


def test_an_empty_pool_ends_the_call_and_nothing_is_sent(half, pool, cloud, server):
    refusal = pytest.raises(BlindersError, match=r"a row for each that is sent, 16, got 12")
    with Client(BlindedHalf(half, pool), server.address) as client, refusal:
        client.classify(images(4 * GROUP))
    assert not cloud.requests
    assert pool.left == 3 * GROUP


def test_only_float32_is_sent(half, pool, server):
    refusal = pytest.raises(ValueError, match="wire_dtype must be 'float32', got 'float16'")
    with Client(BlindedHalf(half, pool), server.address, wire_dtype="float16") as client, refusal:
        client.classify(images(GROUP))
    assert pool.left == 3 * GROUP


@pytest.mark.parametrize(
    ("network", "shape", "message"),
    [
        ("another", None, "network of the blinders must be the half's, 0123456789abcdef, got another"),
        (None, (1, 2, 3), r"features_shape of the blinders must be the half's, .*, got \(1, 2, 3\)"),
    ],
)
def test_blinders_of_another_network_are_refused(half, pool, network, shape, message):
    strange = Blinders.create(
        pool.path.parent / "other", network or pool.network, pool.blinding, shape or pool.features_shape,
        [(b"0" * 32, np.zeros(7))],
    )  # fmt: skip
    with pytest.raises(ValueError, match=message):
        BlindedHalf(half, strange)


def test_a_constant_of_the_cloud_cancels(half, pool):
    """Mixed rows do not sum to one, so that a constant comes out of an un-mix as noise; blinded, it falls out."""

    def cloud(rows, constant=50.0):
        return rows.reshape(len(rows), -1).astype(np.float64) @ MIDDLE + constant

    seeds = [secrets.token_bytes(32) for _ in range(GROUP)]
    outputs = cloud(pool.blinding.rows(seeds, pool.features_shape))
    own = Blinders.create(
        pool.path.parent / "biased", pool.network, pool.blinding, pool.features_shape, zip(seeds, outputs, strict=True)
    )
    with half.mix(images(GROUP), wire_dtype="float32") as plain, BlindedHalf(half, own).mix(images(GROUP)) as blinded:
        exact = plain.classify(cloud(plain.payload, constant=0).astype(np.float32)).scores
        scores = blinded.classify(cloud(blinded.payload).astype(np.float32)).scores
    np.testing.assert_allclose(scores, exact, rtol=1e-3, atol=1e-3 * np.abs(exact).max())


def test_secrets_are_zeroed(half, pool):
    with BlindedHalf(half, pool).mix(images(GROUP)) as request:
        assert request._outputs.any()
        with pytest.raises(ValueError, match="reply must have shape"):
            request.classify(np.zeros((GROUP, 3), np.float32))
        with pytest.raises(ValueError, match="reply must be finite"):
            request.classify(np.full((GROUP, MIDDLE.shape[1]), np.nan, np.float32))
        assert not request.closed
        assert request._outputs.any()  # open for a better reply
        request.classify(np.zeros((GROUP, MIDDLE.shape[1]), np.float32))
    assert request.closed
    assert not request._outputs.any()


def test_a_request_cannot_be_pickled(half, pool):
    with BlindedHalf(half, pool).mix(images(GROUP)) as request, pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(request)


def test_noise_and_outputs_are_zeroed(half, pool, monkeypatch):
    made, rows = [], Blinding.rows
    monkeypatch.setattr(Blinding, "rows", lambda *args: made.append(rows(*args)) or made[-1])
    request = BlindedHalf(half, pool).mix(images(GROUP))
    assert len(made) == GROUP
    assert not any(noise.any() for noise in made)
    request.classify(request.payload.reshape(GROUP, -1) @ MIDDLE.astype(np.float32))
    assert not request._outputs.any()
