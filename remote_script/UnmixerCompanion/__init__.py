"""Control surface "UnmixerCompanion": what AbletonOSC cannot do yet (see ../README.md).

Needs Live 12.3 or later.
"""


def create_instance(c_instance):  # type: ignore[no-untyped-def]
    """Called by Live when the script is chosen as a control surface."""
    from .surface import UnmixerCompanion

    return UnmixerCompanion(c_instance)
