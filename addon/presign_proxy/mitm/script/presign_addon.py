"""The script for `mitmdump -s "$(presign script-path)"`, alone in its directory: that comes onto sys.path."""

from presign_proxy.mitm.addon import PresignAddon

addons = [PresignAddon()]
