"""A host whose clock is an hour off: Python imports this first where the folder is on PYTHONPATH.

It moves what Python's own code asks for. Steady clocks are right on such a host too.
"""

import datetime
import time

OFFSET_S = 3600

_time, _time_ns, _datetime = time.time, time.time_ns, datetime.datetime


class _AnyDatetime(type):
    """Drivers written in C make instances of the original class."""

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, _datetime)

    def __subclasscheck__(cls, subclass: type) -> bool:
        return issubclass(subclass, _datetime)


class _WrongDatetime(_datetime, metaclass=_AnyDatetime):
    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:
        return _datetime.fromtimestamp(time.time(), tz)

    @classmethod
    def utcnow(cls) -> datetime.datetime:
        return _datetime.fromtimestamp(time.time(), datetime.UTC).replace(tzinfo=None)


time.time = lambda: _time() + OFFSET_S
time.time_ns = lambda: _time_ns() + OFFSET_S * 10**9
datetime.datetime = _WrongDatetime
