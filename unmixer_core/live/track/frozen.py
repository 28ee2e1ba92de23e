"""What stock AbletonOSC cannot set: Wavetable's tables, effect modes, unison and modulation matrix.

Read once, then frozen.

The properties are plain attributes of the device, so `track_data` reads them. A table's name and
the matrix are beyond it: the device is named after its tables by the user ("FM Fold" or "FM Fold /
Bell"; an unnamed one counts as Basic Shapes, Live's default), and its envelope 2 and LFO 1 must
move nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from unmixer_core.errors import ChoiceFrozen, DeviceMissing, HostError
from unmixer_core.live.osc.client import Client
from unmixer_core.live.track.targets import FIXED_PROPERTIES
from unmixer_core.schema.devices import WAVETABLES
from unmixer_core.schema.patch import Patch
from unmixer_core.schema.rack import RACK

SEPARATOR = " / "
DEFAULT_TABLE = WAVETABLES[0]
#: Choice → which of the two names in the device's name.
TABLE_CHOICES = {"wavetable.osc_1_wavetable": 0, "wavetable.osc_2_wavetable": 1}
UNREACHABLE = {
    ref.id: ref.choice
    for ref in RACK.choices
    if ref.choice.address.kind == "property" and ref.id not in TABLE_CHOICES
}
#: Wavetable's properties that `track_data` reads.
SCALARS = (
    *(choice.address.name for choice in UNREACHABLE.values()),
    *FIXED_PROPERTIES,
    *(f"oscillator_{n}_wavetable_{kind}" for n in (1, 2) for kind in ("category", "index")),
)
AMOUNTS = [ref.id for ref in RACK.knobs if ref.knob.address.kind == "modulation"]
#: Unit value of a modulation amount of zero.
CENTRE = 0.5
COMPANION = "the companion script (remote_script/README.md) can set it"


@dataclass(frozen=True)
class ValueDifference:
    """One control of a patch that the set has otherwise."""

    control: str
    wanted: str
    kept: str

    def __str__(self) -> str:
        return f"{self.control} is {self.kept}, not {self.wanted}"


@dataclass(frozen=True)
class FrozenTrack:
    """`items`: choice id → item that the set has, for every choice beyond stock AbletonOSC's reach.

    Amounts are all zero.
    """

    items: Mapping[str, str]
    #: Whether the user named the device after its tables; otherwise Basic Shapes is taken for
    #: granted.
    named: bool = True
    #: The device's name and its scalars as they were read, whatever they mean: a table is known by
    #: its number only.
    device: tuple[object, ...] = field(default=(), compare=False)

    def differences(self, patch: Patch) -> tuple[ValueDifference, ...]:
        """Where the patch would sound otherwise; controls that cannot be heard do not count."""
        return tuple(self._differences(patch.canonical()))

    def require(self, patch: Patch) -> None:
        """Raises ChoiceFrozen when the set cannot sound as `patch`."""
        if found := self.differences(patch):
            raise ChoiceFrozen(
                f"stock AbletonOSC cannot render this patch: {'; '.join(map(str, found))} in the "
                f"template set; {COMPANION}."
            )

    def apply(self, patch: Patch) -> Patch:
        """The patch as this set renders it.

        Frozen choices as the set has them, modulation amounts zero.
        """
        return patch.with_values({**self.items, **dict.fromkeys(AMOUNTS, CENTRE)})

    def describe(self) -> str:
        """A sentence for the user."""
        kept = ", ".join(
            f"{key.removeprefix('wavetable.')} {item}" for key, item in self.items.items()
        )
        taken = (
            ""
            if self.named
            else "; the tables are taken for granted, name the device after them if it has others"
        )
        amounts = "amounts of Env 2 and LFO 1 zero (leave the matrix as Live makes it)"
        return f"frozen, as stock AbletonOSC cannot set them: {kept}, {amounts}{taken}"

    def _differences(self, patch: Patch) -> Iterator[ValueDifference]:
        knobs, choices = RACK.active(patch.choices, patch.chain, patch.knobs)
        for key, item in self.items.items():
            if choices[RACK.choice_index[key]] and patch.item(key) != item:
                yield ValueDifference(key, patch.item(key), item)
        for key in AMOUNTS:
            column = RACK.knob_index[key]
            amount = float(RACK.knobs[column].knob.to_raw(float(patch.knobs[column])))
            if knobs[column] and amount != 0.0:
                yield ValueDifference(key, f"{amount:+.0%}", "0 %")


async def read_frozen(client: Client, track: int, track_name: str) -> FrozenTrack:
    """Reads Wavetable's properties, the only device of `track`.

    Raises DeviceMissing for a state we have no name for.
    """
    reply = await _read_device(client, track, track_name)
    values = dict(zip(SCALARS, (int(str(value)) for value in reply[1:]), strict=True))
    _check_fixed(values)
    items = {}
    for key, choice in UNREACHABLE.items():
        raw = float(values[choice.address.name])
        if raw not in choice.raws:
            raise DeviceMissing(
                f"Wavetable's {choice.address.name} is {raw:g} in the template set, but renders "
                f"know only "
                f"{', '.join(choice.items)}: choose one of them in the template, or use the "
                f"companion."
            )
        items[key] = choice.items[choice.raws.index(raw)]
    tables, named = named_tables(str(reply[0]))
    return FrozenTrack({key: tables[i] for key, i in TABLE_CHOICES.items()} | items, named, reply)


async def verify_frozen(client: Client, track: int, track_name: str, frozen: FrozenTrack) -> None:
    """Everything that was read is still so; amounts of the matrix are out of stock's reach.

    Raises HostError, which ends the session: nobody but the user can set it back, but a new session
    has new copies.
    """
    now = await _read_device(client, track, track_name)
    for key, before, after in zip(("name", *SCALARS), frozen.device, now, strict=False):
        if before != after:
            raise HostError(
                f"Wavetable's {key} on track {track + 1} was changed from {before} to {after} "
                f"since the session began; "
                "stock AbletonOSC cannot set it back: leave the tracks named Unmixer alone while "
                "a render runs."
            )


async def _read_device(client: Client, track: int, track_name: str) -> tuple[object, ...]:
    """The name of Wavetable, the only device of `track`, and its SCALARS."""
    wanted = ("track.name", "device.name", *(f"device.{key}" for key in SCALARS))
    return await client.query(
        "/live/song/get/track_data", track_name, asked=(track, track + 1, *wanted)
    )


def named_tables(device_name: str) -> tuple[tuple[str, str], bool]:
    """Tables of both oscillators by the device's name, and whether it names any.

    Raises DeviceMissing for unknown ones.
    """
    if device_name == RACK.synth.name:
        return (DEFAULT_TABLE, DEFAULT_TABLE), False
    first, _, second = device_name.partition(SEPARATOR)
    tables = first, second or DEFAULT_TABLE
    for name in tables:
        if name not in WAVETABLES:
            raise DeviceMissing(
                f"the template's Wavetable is called {device_name!r}, but should be called after "
                f"its tables, as "
                f"'FM Fold' or 'FM Fold / Bell'; known are {', '.join(WAVETABLES)}."
            )
    return tables, True


def _check_fixed(values: Mapping[str, int]) -> None:
    """What no patch names has to be at the values the laws assume, as far as it is heard."""
    for key, wanted in FIXED_PROPERTIES.items():
        heard = key != "unison_voice_count" or values["unison_mode"] != 0
        if heard and values[key] != wanted:
            raise DeviceMissing(
                f"Wavetable's {key} is {values[key]} in the template set, but renders need "
                f"{wanted}: set it there by hand, "
                "or use the companion."
            )


def frozen_of(patch: Patch, frozen: FrozenTrack | None) -> Patch:
    """The patch as a host with these frozen choices renders it; `frozen` None changes nothing."""
    return patch if frozen is None else frozen.apply(patch)
