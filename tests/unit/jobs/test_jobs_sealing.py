"""Encrypted values: what opens them, and what does not."""

import pytest

from jobs.errors import SealedUnreadable, SealingNotConfigured, SettingsError
from jobs.sealing import Sealer, new_key
from jobs.settings import SealingSettings, load

URL = "postgresql://h/d"


def test_a_value_comes_back_with_any_of_the_keys_and_in_its_own_row_only() -> None:
    old, new = new_key(), new_key()
    sealed = Sealer((old,)).seal("sec_1", "höchst geheim: ja")
    assert "geheim" not in sealed
    assert Sealer((new, old)).open("sec_1", sealed) == "höchst geheim: ja"
    with pytest.raises(SealedUnreadable, match="another row"):
        Sealer((old,)).open("sec_2", sealed)
    for wrong in (Sealer((new,)), Sealer((new_key(), new))):
        with pytest.raises(SealedUnreadable, match="none of the keys"):
            wrong.open("sec_1", sealed)


def test_a_value_is_sealed_with_the_first_key() -> None:
    old, new = new_key(), new_key()
    assert Sealer((new,)).open("sec_1", Sealer((new, old)).seal("sec_1", "value")) == "value"


def test_without_a_key_nothing_is_sealed_and_the_setting_is_named() -> None:
    for action in (
        lambda: Sealer(()).seal("a", "b"),
        lambda: Sealer(()).open("a", "b"),
        lambda: Sealer(()).digest("a"),
    ):
        with pytest.raises(SealingNotConfigured, match="EGRPO_SECRET_KEYS"):
            action()


def test_keys_are_read_from_one_variable_and_never_shown() -> None:
    keys = (new_key(), new_key())
    settings = load(SealingSettings, database_url=URL, secret_keys=f" {keys[0]}, {keys[1]} ")
    assert settings.sealing_keys() == keys
    assert not any(key in repr(settings) + repr(Sealer.of(settings)) for key in keys)
    assert load(SealingSettings, database_url=URL).sealing_keys() == ()
    with pytest.raises(SettingsError, match="EGRPO_SECRET_KEYS") as caught:
        load(SealingSettings, database_url=URL, secret_keys=f"{keys[0]},hunter2-hunter2")
    assert "hunter2" not in caught.value.detail
