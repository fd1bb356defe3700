"""The script for `mitmdump -s addon/presign.py`. Everything is in the package beside it."""

from presign_proxy.mitm.addon import PresignAddon

addons = [PresignAddon()]
