"""The script for `mitmdump -s addon/presign.py`. The package beside it does the work."""

from presign_proxy.mitm.addon import PresignAddon

addons = [PresignAddon()]
