"""The embedded host: a process that speaks AbletonOSC on loopback UDP and sounds through Vital
(the `vita` package).
"""
