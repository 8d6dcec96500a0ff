"""What outlives a message: time series, devices, attributes, alarms, commands, dead letters."""
