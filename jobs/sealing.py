"""Values that lie encrypted in the database: sealed with the first key of the settings, opened with any of them.

Fernet (AES-128-CBC, HMAC-SHA256) of `cryptography`. The id of the row is sealed in with the value, so that what was
copied into another row does not open there. Keeps nothing and writes nothing; `jobs.rekey` seals anew after a new key.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from jobs.errors import SealedUnreadable, SealingNotConfigured
from jobs.settings import SealingSettings


def new_key() -> str:
    """Returns a new key for `EGRPO_SECRET_KEYS`."""
    return Fernet.generate_key().decode()


@dataclass(frozen=True)
class Sealer:
    """Seals and opens; without a key it does neither."""

    keys: tuple[str, ...] = field(repr=False)

    @classmethod
    def of(cls, settings: SealingSettings) -> Sealer:
        """Returns the one of these settings."""
        return cls(settings.sealing_keys())

    def seal(self, row_id: str, value: str) -> str:
        """Returns the value as it may be stored in that row.

        Raises:
            SealingNotConfigured: There is no key.
        """
        return self._fernet().encrypt(f"{row_id}:{value}".encode()).decode()

    def open(self, row_id: str, sealed: str) -> str:
        """Returns the value.

        Raises:
            SealingNotConfigured: There is no key.
            SealedUnreadable: No key opens it, or it was sealed for another row.
        """
        try:
            text = self._fernet().decrypt(sealed.encode()).decode()
        except InvalidToken:
            raise SealedUnreadable(f"none of the keys opens the value of {row_id}") from None
        prefix = f"{row_id}:"
        if not text.startswith(prefix):
            raise SealedUnreadable(f"the value of {row_id} was sealed for another row")
        return text.removeprefix(prefix)

    def digest(self, value: str) -> str:
        """Returns what stands for a value where requests are compared; without the key nobody can try values out."""
        self._fernet()
        return hmac.new(self.keys[0].encode(), value.encode(), hashlib.sha256).hexdigest()

    def _fernet(self) -> MultiFernet:
        if not self.keys:
            raise SealingNotConfigured("this service keeps no secrets: its operator has not set EGRPO_SECRET_KEYS")
        return MultiFernet([Fernet(key) for key in self.keys])
