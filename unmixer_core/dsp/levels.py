"""Levels and pitch: conversions between the units of a mixing desk and plain numbers."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

A4_HZ = 440.0
A4_NOTE = 69.0


def decibels_to_gain(level_db: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Amplitude ratio 10^(dB/20)."""
    return torch.exp(level_db * (math.log(10.0) / 20.0))


def decibels_to_power(level_db: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Power ratio 10^(dB/10)."""
    return torch.exp(level_db * (math.log(10.0) / 10.0))


def half_gain(gain_db: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return A = 10^(dB/40), the amplitude whose square is the gain (Audio EQ Cookbook)."""
    return decibels_to_gain(0.5 * gain_db)


def note_to_hz(note: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Equal-tempered frequency in Hz of (fractional) MIDI notes, A4 = 440 Hz."""
    return A4_HZ * torch.exp((note - A4_NOTE) * (math.log(2.0) / 12.0))
