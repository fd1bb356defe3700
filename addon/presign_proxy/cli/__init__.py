"""The command `presign`, one file for each verb."""
