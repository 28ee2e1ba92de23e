"""What a patch is: devices, knobs, choices and ordered effect chains, as data.

No torch, no network.
"""
