"""The demo as a page in a browser on this machine: pick faces, see what the cloud receives and what comes back."""
