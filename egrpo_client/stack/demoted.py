"""Runs a command as another user: `python demoted.py UID GID COMMAND…`, started by root.

PostgreSQL refuses to run as root, yet root's data folder and virtual environment often lie below folders that no other
user may enter (`/root` is 0700). Instead of opening those folders, the command keeps one capability, CAP_DAC_OVERRIDE,
as an ambient one: it enters folders as root would, and is otherwise an ordinary user. `access(2)` ignores capabilities
of a non-root user unless SECBIT_NO_SETUID_FIXUP is set, and PostgreSQL asks `access(2)` before it runs itself; hence
that bit. Where the kernel refuses (a container without these capabilities) the command runs without, and only needs its
folders to be open. Linux only; this file imports nothing of ours so that it starts in milliseconds.
"""

import ctypes
import os
import sys

PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP = 28, 1 << 2
PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE = 47, 2
CAP_DAC_OVERRIDE = 1
LINUX_CAPABILITY_VERSION_3 = 0x20080522


class CapabilityHeader(ctypes.Structure):
    """`struct __user_cap_header_struct`."""

    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class CapabilityData(ctypes.Structure):
    """`struct __user_cap_data_struct`."""

    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def demote(uid: int, gid: int) -> None:
    """Becomes the user and group, keeping CAP_DAC_OVERRIDE alone where the kernel lets us."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP, 0, 0, 0)
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    mask = 1 << CAP_DAC_OVERRIDE
    data = (CapabilityData * 2)(CapabilityData(mask, mask, mask), CapabilityData(0, 0, 0))
    header = CapabilityHeader(LINUX_CAPABILITY_VERSION_3, 0)
    if libc.capset(ctypes.byref(header), data) == 0:
        libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_DAC_OVERRIDE, 0, 0)
    else:
        nothing = (CapabilityData * 2)()
        libc.capset(ctypes.byref(header), nothing)


if __name__ == "__main__":
    demote(int(sys.argv[1]), int(sys.argv[2]))
    os.execv(sys.argv[3], sys.argv[3:])
