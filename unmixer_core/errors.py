"""Every error a user can meet, as one tree.

Each message is one sentence that says what was expected, what came and what to do.

UnmixerError
├── ConfigError            params.yaml, a profile or an environment variable
├── SchemaMismatch         a file made with another list of devices and knobs
├── AudioError             a sound that cannot be read, or has nothing in it
├── HostError              Ableton Live or the embedded host
│   ├── HostTimeout        no reply in time
│   ├── HostRefused        the host answered with an error
│   ├── HostDied           the host's process ended
│   ├── PortBusy           another program holds the reply port
│   ├── DeviceMissing · ParameterMissing   this Live does not have it
│   ├── ReadbackMismatch   a value was set but reads back differently
│   ├── ChoiceFrozen       a patch asks for a choice that stock AbletonOSC cannot set
│   └── RecordingError     the recorded file is missing, short or of the wrong rate
├── TrainingError          a non-finite loss or gradient
└── StageError             a stage's inputs do not fit together
"""

from __future__ import annotations


class UnmixerError(Exception):
    """Root of all errors whose message is meant for the user."""


class ConfigError(UnmixerError):
    """A setting is unknown, missing, of the wrong type or out of range."""


class SchemaMismatch(UnmixerError):
    """A file carries another schema digest than this code."""

    def __init__(self, what: str, found: str | None, expected: str, rebuild: str) -> None:
        super().__init__(
            f"{what} was made with schema {found or '(none)'}, but this code has schema "
            f"{expected}; run `{rebuild}` to rebuild it."
        )
        self.found, self.expected = found, expected


class AudioError(UnmixerError):
    """A sound file is missing, corrupt, truncated, silent or of an unsupported form."""


class HostError(UnmixerError):
    """Ableton Live or the embedded host could not do what was asked."""


class HostTimeout(HostError):
    """The host did not answer in time."""


class HostRefused(HostError):
    """The host answered with an error."""


class HostDied(HostError):
    """The host's process ended."""


class PortBusy(HostError):
    """Another program holds the UDP port."""


class DeviceMissing(HostError):
    """The host has no such device."""


class ParameterMissing(HostError):
    """The device has no parameter of this name."""


class ReadbackMismatch(HostError):
    """A value was set, but the host reads back another one."""


class ChoiceFrozen(HostError):
    """The patch asks for a choice that stock AbletonOSC cannot set and the set does not have."""


class RecordingError(HostError):
    """The recorded file is missing, short, unreadable or of the wrong rate."""


class TrainingError(UnmixerError):
    """Training met a non-finite loss or gradient."""


class StageError(UnmixerError):
    """A stage's inputs do not fit together."""
