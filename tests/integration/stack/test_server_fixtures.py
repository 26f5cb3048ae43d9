"""The servers that the other tests stand on answer, and are what they claim to be."""

import io

import minio
import psycopg
import pytest
import redis
from server_fixtures import S3Server, libpq_url


def test_postgres_role_owns_its_databases_and_is_no_superuser(postgres_url: str) -> None:
    with psycopg.connect(libpq_url(postgres_url)) as connection:
        row = connection.execute("SELECT rolsuper, rolcreatedb FROM pg_roles WHERE rolname = current_user").fetchone()
    assert row == (False, True)


def test_postgres_refuses_a_wrong_password(postgres_url: str) -> None:
    role, _, rest = libpq_url(postgres_url).rpartition("@")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(f"{role.rsplit(':', 1)[0]}:wrong@{rest}")


def test_valkey_wants_its_password(valkey_url: str) -> None:
    with redis.Redis.from_url(valkey_url) as client:
        assert client.ping()
    with (
        redis.Redis.from_url("redis://" + valkey_url.rpartition("@")[2]) as stranger,
        pytest.raises(redis.AuthenticationError),
    ):
        stranger.ping()


def test_s3_stores_for_its_key_only(s3: S3Server, bucket: str) -> None:
    s3.client().put_object(bucket, "a/b", io.BytesIO(b"x"), 1)
    answer = s3.client().get_object(bucket, "a/b")
    assert answer.read() == b"x"
    answer.close()
    with pytest.raises(minio.error.S3Error, match=r"SignatureDoesNotMatch|InvalidAccessKeyId"):
        S3Server(s3.endpoint, s3.access_key, "wrong").client().list_buckets()
