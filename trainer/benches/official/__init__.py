"""The official step beside ours: what `official.py` runs in processes of its own."""
