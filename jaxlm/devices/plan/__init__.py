"""The command `python -m jaxlm.devices.plan`, which compiles a run for devices that are not there."""
