"""What can stop the local stack from starting or stopping, each with the sentence that says what to do.

StackError
├── PortTakenError          another process listens on a port that the stack was told to use
├── DataFolderError         the data folder belongs to another version, or cannot be used
├── DiskSpaceError          not enough free space
├── AlreadyRunningError     a stack runs in this data folder
├── NotInstalledError       a server's wheel is missing
└── ServerStartError        a server ended or stayed silent while starting; carries the end of its log
"""

from egrpo_client.errors import ClientError


class StackError(ClientError):
    """Says, in one or two sentences for the user, what is wrong with the local stack and what to do."""


class PortTakenError(StackError):
    """A port that the stack must use is in use by another process."""


class DataFolderError(StackError):
    """The data folder was made by another version, or is not a folder that the stack can use."""


class DiskSpaceError(StackError):
    """The disk of the data folder has too little free space."""


class AlreadyRunningError(StackError):
    """A stack already runs in this data folder."""


class NotInstalledError(StackError):
    """The wheel of a server is not installed."""


class ServerStartError(StackError):
    """A server ended, or did not answer in time, while it was being started."""
