"""Everything a session could disturb in a user's set, asked for over the wire."""

from __future__ import annotations

from unmixer_core.errors import HostError
from unmixer_core.live.track.tracks import track_names

SETTINGS = (
    "arm",
    "current_monitoring_state",
    "input_routing_type",
    "input_routing_channel",
    "volume",
    "mute",
    "solo",
)


async def snapshot(client):
    """One list per track: name, settings, clips with their notes, devices with all their values."""
    tracks = []
    for track, name in enumerate(await track_names(client)):
        settings = [await client.query(f"/live/track/get/{key}", track) for key in SETTINGS]
        clips = []
        for slot, full in enumerate(
            await client.query(
                "/live/song/get/track_data", extra=(track, track + 1, "clip_slot.has_clip")
            )
        ):
            clips.append(await notes(client, track, slot) if full else None)
        classes = await client.query("/live/track/get/devices/class_name", track)
        values = [
            await client.query("/live/device/get/parameters/value", track, i)
            for i in range(len(classes))
        ]
        tracks.append([name, settings, clips, classes, values])
    return tracks


async def notes(client, track, slot):
    try:
        return await client.query("/live/clip/get/notes", track, slot, extra=(0, 128, 0.0, 1000.0))
    except HostError:
        return "audio"
