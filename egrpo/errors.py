"""The error tree of the method. Picklable, free of HTTP words, each also the standard class that it refines.

    EGRPOError
    ├── ConfigError(ValueError)          the spec or the command line is wrong           exit 2
    │   ├── DispersionError              the merge plan over-disperses the latent
    │   ├── MemoryLimitError             the run needs more memory than the device has
    │   └── SelfCheckError               the first rollout shows that the run could not learn
    ├── ModelError(RuntimeError)         the base model cannot be loaded                 exit 66
    │   └── ModelGatedError              its licence must be accepted first               exit 77
    ├── RewardError(RuntimeError)        a reward raised or broke its protocol           exit 69
    ├── NonFiniteError(ArithmeticError)  a loss, gradient or reward is not finite        exit 65
    ├── CheckpointError(RuntimeError)    a checkpoint cannot be written or read          exit 70
    └── StopRequested                    SIGTERM arrived; not a failure                  exit 75

`code` is the stable word of the event protocol and `exit_code` the status of the process.
"""


class EGRPOError(Exception):
    """Base of every error that the method raises on purpose."""

    code = "internal"
    exit_code = 70
    retryable = False


class ConfigError(EGRPOError, ValueError):
    """The spec or the command line is wrong; the message names field, value and what is allowed."""

    code = "invalid_spec"
    exit_code = 2


class DispersionError(ConfigError):
    """Merged steps over-disperse the latent beyond the limit; the message names the steps."""


class MemoryLimitError(ConfigError):
    """The run will need more memory than the device has; the message says what to change."""


class SelfCheckError(ConfigError):
    """The first rollout shows that the run could not learn; the message says what to change."""


class ModelError(EGRPOError, RuntimeError):
    """The base model cannot be loaded or does not fit the adapter."""

    code = "model_unavailable"
    exit_code = 66


class ModelGatedError(ModelError):
    """The base model's repository is gated and this machine has no access; the message says how to get it."""

    code = "model_gated"
    exit_code = 77


class RewardError(EGRPOError, RuntimeError):
    """A reward raised, or returned something other than its protocol promises."""

    code = "reward_failed"
    exit_code = 69


class NonFiniteError(EGRPOError, ArithmeticError):
    """A loss, gradient norm or reward is not a finite number; the message names the culprit."""

    code = "non_finite_loss"
    exit_code = 65


class CheckpointError(EGRPOError, RuntimeError):
    """A checkpoint cannot be written, or what is on disk is not what its manifest says."""


class StopRequested(EGRPOError):  # noqa: N818  it is no error, but it travels as an exception
    """SIGTERM arrived; unwinds to the main loop, which commits the last finished step."""

    exit_code = 75
    retryable = True
